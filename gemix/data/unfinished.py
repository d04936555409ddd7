"""The shards that an interrupted run has finished, so that the next one goes on from there.

A finished shard leaves a small file in ``unfinished/`` that says what it was made of and what came
of it. A run with the same plan and settings takes it over if the shard's bytes are still those; a
shard that had bad files is built again, because they may have been mended.
"""

from __future__ import annotations

import hashlib

from gemix.data.config import DataConfig
from gemix.data.shard_plan import ShardPlan, ShardResult
from gemix.errors import DataError
from gemix.storage import Store

_FOLDER = "unfinished"


def keep(store: Store, plan: ShardPlan, config: DataConfig, result: ShardResult) -> None:
    """Notes that the shard of a plan is written."""
    store.write_json(_name(plan), {"digest": plan.digest(config), "result": result.to_json()})


def kept(store: Store, plan: ShardPlan, config: DataConfig) -> ShardResult | None:
    """What became of a plan in an earlier run; None if its shard has to be built."""
    try:
        tree = store.read_json(_name(plan))
        if tree["digest"] != plan.digest(config):
            return None
        result = ShardResult.from_json(tree["result"])
        if result.quarantined or result.entry is None:
            return None
        data = store.read_bytes(plan.name)
    except (DataError, KeyError, TypeError, ValueError):
        return None  # not there, or damaged: building it again mends it
    return result if hashlib.sha256(data).hexdigest() == result.entry.sha256 else None


def forget(store: Store) -> None:
    """Removes the notes of a run that has finished."""
    for name in (store / _FOLDER).list():
        store.delete(f"{_FOLDER}/{name}")


def _name(plan: ShardPlan) -> str:
    return f"{_FOLDER}/{plan.name}.json"
