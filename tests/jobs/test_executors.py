"""Every executor does what the steps expect of it."""

from __future__ import annotations

import os
import time

import pytest
import torch

from gemix.config import ComputeConfig
from gemix.core.errors import ConfigError, DataError
from gemix.steps.runtime.executor import LocalExecutor
from jobs._runtime.ray_cluster import connect
from jobs._runtime.ray_data import map_unordered
from jobs._runtime.ray_executor import RayExecutor

ONE_CORE = ComputeConfig(workers=1, cpus_per_worker=1, gpus_per_worker=0)
EXECUTORS = [
    pytest.param(LocalExecutor(), id="local"),
    pytest.param(RayExecutor(), id="ray", marks=pytest.mark.slow),
]
NAMES = {"title": "test", "unit": "numbers"}


@pytest.fixture
def slow_first():
    def work(number):  # in here, so that workers need not import this file
        time.sleep(0.5 if number == 0 else 0)
        return number, os.getpid()

    return work


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("compute", [None, ONE_CORE])
def test_results_come_in_the_order_of_the_inputs(executor, slow_first, compute):
    results = list(executor.map(slow_first, range(40), compute=compute, **NAMES))
    assert [number for number, _ in results] == list(range(40))
    here = isinstance(executor, LocalExecutor)  # Ray works in other processes
    assert (os.getpid() in {pid for _, pid in results}) == here


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_state_is_built_once_a_process(executor):
    def build():
        state = []

        def count(number):
            state.append(number)
            return number, len(state)

        return count

    plan = {"compute": ONE_CORE, "weights": [2] * 6}
    results = list(executor.map_with_state(build, range(6), **plan, **NAMES))
    assert [number for number, _ in results] == list(range(6))
    assert sorted(uses for _, uses in results) == list(range(1, 7))


@pytest.mark.parametrize("executor", EXECUTORS)
def test_no_input_is_no_result(executor):
    assert list(executor.map(abs, [], **NAMES)) == []


@pytest.mark.parametrize("executor", EXECUTORS)
def test_an_error_of_the_library_arrives_as_it_is(executor):
    def fail(number):
        raise DataError(f"scans/{number}: mend it")

    with pytest.raises(DataError, match=r"^scans/\d: mend it$"):
        list(executor.map(fail, range(3), **NAMES))


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_training_gets_its_settings_and_maps_beside_itself(executor, tmp_path):
    out = tmp_path / "out"

    def worker(settings, context):
        assert context.local_workers == 1 and context.memory_bytes > 2**28
        found = context.map_unordered(lambda n: n * settings["factor"], range(4), 2)
        out.write_text(str(sorted(found)))

    executor.require(ONE_CORE)
    executor.train("test", worker, {"factor": 3}, ONE_CORE, str(tmp_path / "ray"))
    assert out.read_text() == "[0, 3, 6, 9]"


def test_one_process_has_no_two_workers():
    with pytest.raises(ConfigError, match=r"compute\.workers=2"):
        LocalExecutor().require(ComputeConfig(workers=2))


def test_settings_for_a_gpu_never_run_on_a_cpu(monkeypatch):
    compute = ComputeConfig(workers=0, gpus_per_worker=1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for executor in (LocalExecutor(), RayExecutor()):
        with pytest.raises(ConfigError, match=r"compute\.gpus_per_worker=1: PyTorch finds no GPU"):
            executor.require(compute)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    LocalExecutor().require(compute)


@pytest.mark.slow
def test_ray_keeps_opencv_to_the_core_of_the_task():
    def threads(_):
        import cv2

        return cv2.getNumThreads()

    assert set(RayExecutor().map(threads, range(4), **NAMES)) == {1}


@pytest.mark.slow
def test_an_error_beside_a_training_arrives_as_it_is():
    def fail(number):
        raise DataError(f"shard {number}: damaged")

    connect()
    with pytest.raises(DataError, match=r"^shard \d: damaged$"):
        list(map_unordered(fail, range(2), 2))
