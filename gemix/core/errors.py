"""The errors that gemix raises on purpose: each names the thing, the value and the remedy."""

from __future__ import annotations


class GemixError(Exception):
    """Something a user can mend. Command lines print it without a traceback and exit with 1."""

    exit_code = 1


class ConfigError(GemixError, ValueError):
    """One or more bad settings, all of them listed. Command lines exit with 2."""

    exit_code = 2


class DataError(GemixError):
    """Scans, shards or manifests that are missing, damaged or contradictory."""


class StoreError(GemixError):
    """A store that refuses or stays down; it says nothing about the file that was asked for.

    No :class:`DataError`, so that nobody takes a scan for broken, or a finished shard for missing,
    because the store was away.
    """


class CheckpointError(GemixError):
    """A checkpoint that is missing, damaged, or does not fit what it is asked to do."""


class AlreadyFinishedError(GemixError):
    """An output directory that holds a finished result; ``--overwrite`` replaces it."""
