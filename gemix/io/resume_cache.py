"""Cache of the files that an interrupted run has finished, for the run that resumes it.

Each finished file has a small record in ``unfinished/`` with a digest of its inputs and its result.
A run that would write the same file reuses it if its bytes are unchanged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import Any

from gemix.core.errors import DataError
from gemix.io.storage import Store

FOLDER = "unfinished"


def digest_of(*values: Any) -> str:
    """Return 32 hex digits that are equal for equal plain values (JSON)."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def save(store: Store, name: str, digest: str, sha256: str, result: dict[str, Any]) -> None:
    """Record that a file is written.

    Args:
        name: name of the file.
        digest: digest of its inputs.
        sha256: hex digest of its bytes; empty where no file was needed.
        result: plain values.
    """
    record = {"digest": digest, "sha256": sha256, "result": result}
    store.write_json(_record(name), record)


def load(store: Store, name: str, digest: str) -> dict[str, Any] | None:
    """Return the result of a file that is whole and of these inputs, None if it must be written."""
    try:
        record = store.read_json(_record(name))
        if record["digest"] != digest:
            return None
        data = store.read_bytes(name) if record["sha256"] else None
        result = record["result"]
    except (DataError, KeyError, TypeError):
        return None  # not there, or damaged: writing it again repairs it
    if data is not None and hashlib.sha256(data).hexdigest() != record["sha256"]:
        return None
    return result


def clear(store: Store) -> None:
    """Remove the cache of a run that has finished."""
    for name in (store / FOLDER).list():
        store.delete(f"{FOLDER}/{name}")
    if store.is_local:
        with contextlib.suppress(OSError):  # not there, or another run has written into it
            os.rmdir(store.path(FOLDER))


def _record(name: str) -> str:
    return f"{FOLDER}/{name.rpartition('/')[2]}.json"
