"""A training step never asks the device for a value; tests/gpu checks the same on a GPU."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gemix.core.distributed import Workers
from gemix.gan.augment import augmenter
from gemix.gan.training.registry import METHODS, new_state
from tests.gan.test_training import ARCHITECTURE, CPU, disks, tiny_config

SYNCING = {"_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "unique"}


class SyncCounter(TorchDispatchMode):
    """Count the operations for whose result the host would wait on a GPU."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        # a list as an index is copied from the host, which waits
        is_list = name == "lift_fresh" and args[0].dtype == torch.int64
        is_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name.lstrip("_") in {sync.lstrip("_") for sync in SYNCING} or is_mask or is_list:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def test_the_counter_counts():
    values = torch.tensor([1.0, 0.0])
    with SyncCounter() as counter:
        bool(values.any())
        values.nonzero()
        values[values > 0]
        values.sum().item()
        values[[1, 0]]
    assert len(counter.found) == 5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_no_step_waits_for_a_value(monkeypatch, method, accumulate):
    """Over 17 steps, in which every lazy phase runs, with ADA, mixing and path lengths."""
    monkeypatch.setattr(augmenter, "selects_changed", lambda images: False)  # as on a GPU
    own = {} if method == "cgan" else {"augment": "bgc", "ada_interval": 2}
    config = tiny_config(method=method, kimg=1.0, accumulate=accumulate, **own)
    state = new_state(ARCHITECTURE, config, CPU)
    trainer = METHODS[method](state, disks(), config, Workers())
    trainer.run_step()  # fills caches
    real_batch = trainer.data.real_batch(0, config.batch, range(config.batch))
    # the rows of the real images are copied from pinned memory, which does not wait
    monkeypatch.setattr(trainer.data, "real_batch", lambda *args: real_batch)
    with SyncCounter() as counter:
        for _ in range(17):
            trainer.run_step()
    assert counter.found == []
