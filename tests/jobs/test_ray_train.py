"""Which errors of workers end a Ray Train run, and which are tried again after."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import ray.train
import torch
import torch.distributed as dist
from ray.train import TrainingFailedError

from gemix.config import ComputeConfig
from gemix.core.errors import DataError
from gemix.steps.executor import WorkerContext
from jobs._runtime.ray_executor import RayExecutor

pytestmark = pytest.mark.slow


def run(folder: Path, fail: Callable[[int, int], None], workers: int, reports: int = 2) -> None:
    """Runs workers that fail and then wait for each other; they are started three times at most.

    The file ``seen`` tells the rank of every start.

    Args:
        fail: called with the rank and how many starts of it came before.
        reports: to Ray before. The second waits until Ray has seen the first, so all have started.
    """
    starts = folder / "starts"

    def worker(settings: dict, context: WorkerContext) -> None:
        rank = dist.get_rank() if dist.is_initialized() else 0
        before = starts.read_text().split().count(str(rank)) if starts.exists() else 0
        with starts.open("a") as file:
            file.write(f"{rank}\n")
        for _ in range(reports if dist.is_initialized() else 0):
            ray.train.report({})
        fail(rank, before)
        if dist.is_initialized():
            dist.all_reduce(torch.ones(1))

    compute = ComputeConfig(workers=workers, cpus_per_worker=1, gpus_per_worker=0, max_failures=2)
    try:
        RayExecutor().train("test", worker, {}, compute, str(folder / "ray"))
    finally:
        (folder / "seen").write_text(" ".join(sorted(starts.read_text().split())))


@pytest.mark.parametrize("error", [None, DataError("shard 7: damaged"), RuntimeError("no luck")])
def test_without_workers_it_runs_here_once(tmp_path, error):
    ran = []

    def fail(rank, before):
        ran.append((os.getpid(), rank, before))
        if error is not None:
            raise error

    expected = contextlib.nullcontext() if error is None else pytest.raises(type(error))
    with expected as raised:
        run(tmp_path, fail, workers=0)
    assert ran == [(os.getpid(), 0, 0)]
    assert error is None or raised.value is error


@pytest.mark.parametrize("workers", [1, 2])
def test_what_the_user_can_mend_ends_the_run_at_once(tmp_path, workers):
    """The first of two workers waits for the second, which does not come."""

    def fail(rank, before):
        if rank == workers - 1:
            raise DataError("shard 7: damaged; write it again")

    with pytest.raises(DataError, match=r"^shard 7: damaged; write it again$"):
        run(tmp_path, fail, workers)
    assert (tmp_path / "seen").read_text() == " ".join(map(str, range(workers)))


def test_workers_that_are_killed_start_again(tmp_path):
    def fail(rank, before):
        if rank == 1 and not before:
            os.kill(os.getpid(), signal.SIGKILL)

    run(tmp_path, fail, workers=2)
    assert (tmp_path / "seen").read_text() == "0 0 1 1"


def test_a_worker_that_is_killed_while_it_starts_starts_again(tmp_path):
    def fail(rank, before):
        if not before:
            os.kill(os.getpid(), signal.SIGKILL)

    run(tmp_path, fail, workers=1, reports=0)
    assert (tmp_path / "seen").read_text() == "0 0"


def test_other_errors_are_tried_as_often_as_they_may(tmp_path):
    def fail(rank, before):
        raise RuntimeError("out of luck")

    with pytest.raises(TrainingFailedError, match="out of luck"):
        run(tmp_path, fail, workers=1)
    assert (tmp_path / "seen").read_text() == "0 0 0"
