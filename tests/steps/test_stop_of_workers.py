"""Several workers of a GAN training stop after the same step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from gemix.core.distributed import Workers
from gemix.core.stop import Stopped
from gemix.gan.checkpoints.checkpoint import TrainingSpec, checkpoints
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import InMemoryDataset
from gemix.io.storage import Store
from gemix.steps.gan_training.stage import Stage
from tests.processes import run_processes

CONFIG = GanConfig(
    kimg=1.0,
    batch=8,
    z_dim=16,
    w_dim=16,
    mapping_layers=1,
    channel_base=64,
    channel_max=8,
    precision="float32",
)


class Silent:
    """Takes what a run logs."""

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


def run_worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    polls = []

    @contextlib.contextmanager
    def polling() -> Iterator[Callable[[], bool]]:
        def should_stop() -> bool:
            polls.append(rank)
            return rank == 0 and len(polls) >= 2

        yield should_stop

    images = np.random.default_rng(0).integers(0, 256, (24, 1, 8, 8), dtype=np.uint8)
    data = InMemoryDataset(images, np.eye(3, dtype=np.float32)[np.arange(24) % 3], seed=0)
    spec = TrainingSpec(
        architecture=CONFIG.architecture(resolution=8, img_channels=1, label_dim=3),
        config=CONFIG,
        classes=("a", "b", "c"),
        data_digest="d",
    )
    workers = Workers.from_process_group()
    stage = Stage(Store(f"{folder}/gan"), spec, data, workers, Silent(), polling=polling)
    with pytest.raises(Stopped):
        stage.run()
    Path(folder, str(rank)).write_text(str(len(polls)))
    dist.destroy_process_group()


@pytest.mark.slow
def test_workers_stop_after_the_same_step_one_poll_after_rank_0_is_told(tmp_path):
    run_processes(run_worker, args=(str(tmp_path),), nprocs=2)
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["3", "3"]
    assert checkpoints(Store(tmp_path / "gan")) == ["checkpoint-00000012"]
