"""Which Ray is joined, what workers ask for, and what is told meanwhile; no Ray is started."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import threading
import time

import pytest
import ray

from gemix.config import ComputeConfig
from gemix.core.errors import ConfigError, TransientError
from gemix.core.logs import configure_logging
from jobs._runtime import ray_cluster, ray_wait
from jobs._runtime.ray_cluster import connect, describe_resources, worker_resources
from jobs._runtime.ray_logs import _forward
from jobs._runtime.ray_wait import notice_until_first, resource_notice

LOG = logging.getLogger("gemix.train-gan")


@pytest.fixture
def address(monkeypatch):
    """Set RAY_ADDRESS, as if Ray had not been started."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    return lambda value: monkeypatch.setenv("RAY_ADDRESS", value)


@pytest.fixture
def resources(monkeypatch):
    """Set what the nodes of this moment have."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def give(**has: float) -> None:
        monkeypatch.setattr(ray, "cluster_resources", lambda: has)
        monkeypatch.setattr(ray, "available_resources", lambda: has)

    return give


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_dead_address_is_named_within_seconds(address, listening, scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"{scheme}127.0.0.1:{free.getsockname()[1]}"
    address(dead)
    started = time.monotonic()
    with pytest.raises(TransientError, match=re.escape(f"RAY_ADDRESS={dead}: no Ray cluster")):
        connect()
    assert time.monotonic() - started < 10


def test_a_program_that_is_not_ray_is_named(address, listening, monkeypatch):
    monkeypatch.setattr(ray_cluster, "_PROBE_SECONDS", 0.5)
    address(listening)
    with pytest.raises(TransientError, match="what listens there is not a Ray head"):
        connect()


def test_a_machine_on_which_ray_starts_too_late_is_busy(monkeypatch):
    def init(**settings):
        raise Exception("The current node timed out during startup. This could happen because …")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(TransientError, match=r"did not start in time.*run the same command again"):
        connect()


def test_the_address_of_the_dashboard_is_another_one(address):
    address("http://127.0.0.1:8265")
    with pytest.raises(ConfigError, match=r"address of a dashboard.*port 6379"):
        connect()


def test_a_single_machine_decides_by_the_gpus_it_has(resources):
    unset = ComputeConfig(workers=1, cpus_per_worker=2, gpus_per_worker=None)
    resources(CPU=4.0)
    assert worker_resources(unset) == {"CPU": 2.0}
    resources(CPU=4.0, GPU=1.0)
    assert worker_resources(unset) == {"CPU": 2.0, "GPU": 1.0}


def test_a_cluster_without_a_gpu_at_this_moment_does_not_decide_for_cpus(resources, monkeypatch):
    unset = ComputeConfig(workers=2, cpus_per_worker=8, gpus_per_worker=None)
    resources(CPU=2.0)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    with pytest.raises(ConfigError, match=r"set it to 1 to wait for a node.*0 to run on CPUs"):
        worker_resources(unset)
    for gpus, wanted in ((1, {"CPU": 8.0, "GPU": 1.0}), (0, {"CPU": 8.0})):
        chosen = ComputeConfig(workers=2, cpus_per_worker=8, gpus_per_worker=gpus)
        assert worker_resources(chosen) == wanted


def test_a_single_machine_never_waits_for_what_it_has_not(resources):
    resources(CPU=2.0)
    with pytest.raises(ConfigError, match=r"this machine has 0; .* compute\.gpus_per_worker"):
        worker_resources(ComputeConfig(workers=1, cpus_per_worker=1, gpus_per_worker=1))


def test_the_decision_is_one_line():
    wants = {"CPU": 8.0, "GPU": 1.0}
    assert describe_resources(2, wants) == "2 workers with 1 GPU and 8 CPUs each"
    assert describe_resources(1, {"CPU": 1.0}) == "1 worker with 1 CPU"


def test_what_is_waited_for_is_logged_until_it_starts(resources, monkeypatch, caplog):
    resources(CPU=4.0)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    looks = threading.Semaphore(0)

    def started() -> bool:
        looks.release()
        return len(caplog.messages) >= 2

    with resource_notice(LOG, 2, {"CPU": 1.0, "GPU": 1.0}, started, seconds=0.01):
        for _ in range(3):
            assert looks.acquire(timeout=10)
    assert caplog.messages == 2 * [
        "waiting for 2 workers with 1 GPU and 1 CPU each; the cluster has 4 CPUs (4 free), 0 GPUs "
        "(0 free); without an autoscaler, add nodes or ask for less (compute.*)"
    ]


def test_maps_tell_too_what_no_node_has(resources, monkeypatch, caplog):
    resources(CPU=4.0)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    monkeypatch.setattr(ray_wait, "SECONDS", 0.01)

    def results():
        deadline = time.monotonic() + 10
        while not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.01)
        yield 1

    assert list(notice_until_first(results(), "synthesize", {"CPU": 1.0, "GPU": 1.0})) == [1]
    assert caplog.messages[0].startswith("waiting for 1 worker with 1 GPU and 1 CPU;")


@pytest.mark.parametrize("job", [{}, {"env_vars": {"GOMP_SPINCOUNT": "7"}}])
def test_a_submitted_job_keeps_its_own_variables(job, monkeypatch):
    """Ray refuses a driver that names a variable of the job again."""
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": job}))
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    given = ray_cluster._runtime_env()["env_vars"]
    assert given["AWS_REGION"] == "eu-central-1"
    assert ("GOMP_SPINCOUNT" in given) == (not job)


def test_only_a_cluster_watches_for_nodes_that_are_taken_back(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    watch = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
    assert ray_cluster._runtime_env()["env_vars"][watch] == "0"
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert watch not in ray_cluster._runtime_env()["env_vars"]


def test_lines_of_workers_are_shown_as_they_are_and_chatter_is_for_debugging(capsys, caplog):
    batch = {
        "lines": [
            "12:34:56 train-gan: 1.00 of 2 kimg",
            "12:34:56 synthesize softmax: warning: slow",
            "2026-01-01 00:00:00,000 INFO worker.py:1 -- chatter",
            "Traceback (most recent call last):",
        ],
        "actor_name": "RayTrainWorker",
        "pid": 7,
    }
    with contextlib.ExitStack() as stack:
        stack.callback(configure_logging, logging.INFO)
        _forward(batch)
        out, err = capsys.readouterr()
        assert (out, err.splitlines()) == ("", batch["lines"][:2])
        configure_logging(logging.DEBUG)
        _forward(batch, ignore_prefix=False)
    err = capsys.readouterr().err
    assert "ray: RayTrainWorker 7: Traceback (most recent call last):" in err
