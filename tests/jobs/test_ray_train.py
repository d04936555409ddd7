"""Which errors of workers end a Ray Train run, and which are tried again after."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import ray.train
import torch
import torch.distributed as dist
from ray.exceptions import RayActorError
from ray.train import TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _TorchBackend

from gemix.config import ComputeConfig
from gemix.core.errors import DataError, StoreError, WorkerLostError
from gemix.steps.runtime.executor import WorkerContext
from jobs._runtime import ray_train
from jobs._runtime.ray_executor import RayExecutor

pytestmark = pytest.mark.slow


def run(
    folder: Path,
    fail: Callable[[int, int], None],
    workers: int,
    reports: int = 2,
    max_failures: int = 2,
) -> None:
    """Run workers that fail and then wait for each other; they are started three times at most.

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

    compute = ComputeConfig(
        workers=workers, cpus_per_worker=1, gpus_per_worker=0, max_failures=max_failures
    )
    try:
        RayExecutor().train("test", worker, {}, compute, str(folder / "ray"))
    finally:
        seen = starts.read_text().split() if starts.exists() else []
        (folder / "seen").write_text(" ".join(sorted(seen)))


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


@pytest.fixture
def killed_in_setup(monkeypatch, tmp_path):
    """Kill rank 0 as often as given while rank 1 waits for it to set up the process group."""

    def arrange(times: int) -> None:
        kills = tmp_path / "kills"

        def kill() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        class Backend(_TorchBackend):
            def on_start(self, worker_group, backend_config) -> None:
                before = kills.read_text() if kills.exists() else ""
                if len(before) < times:
                    kills.write_text(before + "x")
                    worker_group.execute_single_async(0, kill)
                super().on_start(worker_group, backend_config)

        class Killing(TorchConfig):
            @property
            def backend_cls(self):
                return Backend

        trainer = functools.partial(TorchTrainer, torch_config=Killing())
        monkeypatch.setattr(ray_train, "TorchTrainer", trainer)

    return arrange


def test_a_kill_between_the_setup_and_the_start_gives_the_cores_back(tmp_path, monkeypatch):
    """Ray forgets a group that dies before it takes the training function."""
    kills = tmp_path / "kills"

    class Killing(ray_train._FreeFailedStarts):
        def after_worker_group_start(self, worker_group) -> None:
            self.workers = worker_group.get_workers()

        @contextlib.contextmanager
        def on_worker_group_start(self):
            yield
            if not kills.exists():
                kills.touch()
                ray.kill(self.workers[0].actor)
                with contextlib.suppress(RayActorError):  # the kill takes a moment
                    while True:
                        ray.get(self.workers[0].execute_async(os.getpid))

    monkeypatch.setattr(ray_train, "_FreeFailedStarts", Killing)
    run(tmp_path, lambda rank, before: None, workers=2, max_failures=1)
    assert kills.exists()
    # of the first group only rank 1 may have begun
    assert (tmp_path / "seen").read_text() in ("0 1", "0 1 1")


def test_workers_start_again_after_kills_and_outages_as_often_as_they_may(
    tmp_path, killed_in_setup
):
    """Killed while the process group is set up, killed at work, a store away; then all is well.

    The group that died first gives its cores back: the machine has no others for the next one.
    """
    killed_in_setup(1)

    def fail(rank, before):
        if rank == 1 and before == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if rank == 1 and before == 1:
            raise StoreError("s3://bucket: away")

    run(tmp_path, fail, workers=2, max_failures=2)
    assert (tmp_path / "kills").read_text() == "x"
    assert (tmp_path / "seen").read_text() == "0 0 0 1 1 1"


def test_errors_that_are_not_ours_are_tried_again_too(tmp_path):
    def fail(rank, before):
        raise RuntimeError("out of luck")

    with pytest.raises(TrainingFailedError, match="out of luck"):
        run(tmp_path, fail, workers=1, max_failures=1, reports=0)
    assert (tmp_path / "seen").read_text() == "0 0"


def test_workers_that_die_too_often_end_the_run_in_words(tmp_path, killed_in_setup):
    killed_in_setup(9)
    with pytest.raises(WorkerLostError, match=r"worker process.*died, compute\.max_failures=0;"):
        run(tmp_path, lambda rank, before: None, workers=2, max_failures=0)
    assert (tmp_path / "seen").read_text() == ""


def test_so_do_those_that_die_while_they_train(tmp_path):
    def fail(rank, before):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerLostError, match=r"compute\.max_failures=0"):
        run(tmp_path, fail, workers=1, max_failures=0)
