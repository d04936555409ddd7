"""What an interrupted run has finished, so that the next one goes on from there.

A finished file leaves a small note in ``unfinished/`` that says what it was made of and what came
of it. A run that would make the same file takes it over if its bytes are still those.
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
    """32 hex digits, equal for equal plain values (JSON)."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def keep(store: Store, name: str, digest: str, sha256: str, result: dict[str, Any]) -> None:
    """Notes that a file is written.

    Args:
        name: of the file.
        digest: of all that it was made of.
        sha256: hex digest of its bytes; empty where no file was needed.
        result: plain values that say what came of it.
    """
    note = {"digest": digest, "sha256": sha256, "result": result}
    store.write_json(_note(name), note)


def kept(store: Store, name: str, digest: str) -> dict[str, Any] | None:
    """The result of a file that is there, whole and made of the same; None if it must be made."""
    try:
        note = store.read_json(_note(name))
        if note["digest"] != digest:
            return None
        data = store.read_bytes(name) if note["sha256"] else None
        result = note["result"]
    except (DataError, KeyError, TypeError):
        return None  # not there, or damaged: making it again mends it
    if data is not None and hashlib.sha256(data).hexdigest() != note["sha256"]:
        return None
    return result


def forget(store: Store) -> None:
    """Removes what a run that has finished needs no more."""
    for name in (store / FOLDER).list():
        store.delete(f"{FOLDER}/{name}")
    if store.is_local:
        with contextlib.suppress(OSError):  # not there, or another run has put something into it
            os.rmdir(store.path(FOLDER))


def _note(name: str) -> str:
    return f"{FOLDER}/{name.rpartition('/')[2]}.json"
