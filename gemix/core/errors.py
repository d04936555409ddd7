"""Errors that gemix raises on purpose. Each names the thing, the value and a remedy.

Two kinds::

    GemixError                  the user corrects it; raised at once, never retried
    |- ConfigError              bad settings
    |- DataError                bad scans, shards, manifests or results
    |- CheckpointError          bad checkpoints
    |- AlreadyFinishedError     finished results that would be replaced
    |- LeaseHeldError           a work directory that another process writes
    |- StoreAccessError         a store that refuses: no permission, no such bucket
    |- TrackingConfigError      an MLflow store that is misnamed, damaged or of another version
    `- TransientError           an outage, which passes by itself or without a new command line
       |- StoreError            a store that stays down
       |  `- DiskFullError      no space left
       |- TrackingError         an MLflow server that is away
       `- WorkerLostError       a process or node that died

A transient error is raised after the retries of its own layer (:mod:`gemix.io.s3`,
:mod:`gemix.tracking`). A training goes on where it can do without what failed: it skips a
checkpoint and keeps its metrics in the work directory until MLflow answers. Where it cannot, its
workers are started again up to ``compute.max_failures`` times. The same command resumes a step that
ended.

A command prints the message without a traceback and exits with 2 after a ConfigError, with 1 after
any other error, with 0 after success.
"""

from __future__ import annotations


class GemixError(Exception):
    """Base of all errors; the user must correct those that are no :class:`TransientError`."""

    exit_code = 1


class TransientError(GemixError):
    """An outage. Says nothing about settings or data: retry, or run the same command again."""


class ConfigError(GemixError, ValueError):
    """One or more bad settings, all of them listed. Commands exit with 2."""

    exit_code = 2


class DataError(GemixError):
    """Scans, shards, manifests or results that are missing, damaged or contradictory."""


class CheckpointError(GemixError):
    """A checkpoint that is missing, damaged, or does not fit the training."""


class AlreadyFinishedError(GemixError):
    """An output directory that holds a finished result; ``--overwrite`` replaces it."""


class LeaseHeldError(GemixError):
    """A work directory that another living process writes."""


class StoreAccessError(GemixError):
    """A store that refuses: bad credentials, no permission, no such bucket, read-only."""


class StoreError(TransientError):
    """A store that stays down. Says nothing about the file that was asked for.

    No :class:`DataError`, lest a scan be called broken, or a finished shard missing, because the
    store is away.
    """


class DiskFullError(StoreError):
    """No space left, or a quota used up. Not retried at once; the file that was there is kept."""


class TrackingConfigError(GemixError):
    """An MLflow store that cannot be used as configured: its URI, credentials, driver or file."""


class TrackingError(TransientError):
    """An MLflow server that is away, hangs, or a database that stays locked."""


class WorkerLostError(TransientError):
    """A worker process, actor or node that died, as by the out-of-memory killer."""
