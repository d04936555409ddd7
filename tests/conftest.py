"""Fixtures that every test may use."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

# two cores, several processes: one thread each is quicker than many that fight
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray gives its workers the priority 15, at which they wait for minutes while others compute
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
# Ray ends workers of which there are more than cores after a second; the next test can use them
os.environ.setdefault("RAY_num_workers_soft_limit", "8")
os.environ.setdefault("MPLBACKEND", "Agg")

import boto3
import pytest

from gemix.tracking import database

SHARED = Path(__file__).resolve().parents[2] / "shared"
JOBS = Path(__file__).parent / "jobs"
# Files that take half a minute or more begin first, so that no process is left with one at the end
# (with --no-loadscope-reorder). The other jobs come between: what needs Ray runs together.
LONGEST = (
    *("jobs/test_cluster.py", "jobs/test_sweep_job.py", "jobs/test_ray_train.py"),
    *("jobs/test_signals.py", "jobs/test_pipeline.py", "jobs/test_gan_data.py", "jobs"),
    *("gpu/test_kit.py", "gan/test_compiled.py", "tracking/test_outage.py"),
    *("steps/test_compare.py", "gan/test_kill.py", "gan/test_cuda_graphs.py"),
    *("gan/test_training.py",),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests of the longest files to the front."""
    place = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    jobs, rest = place[JOBS], len(place)
    items.sort(key=lambda i: place.get(i.path, jobs if i.path.parent == JOBS else rest))


@pytest.fixture(scope="module", autouse=True)
def no_idle_ray(request) -> None:
    """End the Ray that jobs have left to each other: while it idles it takes 5% of a core."""
    ray = sys.modules.get("ray")
    if request.path.parent != JOBS and ray is not None and ray.is_initialized():
        ray.shutdown()


@pytest.fixture(autouse=True)
def log_records(caplog) -> None:
    """Let every test read the log of gemix from ``caplog``."""
    caplog.set_level(logging.INFO, logger="gemix")


INITIALIZE = database._initialize


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """A database of MLflow without runs."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    INITIALIZE(path)
    return path


@pytest.fixture(scope="session", autouse=True)
def quick_database(request) -> Iterator[None]:
    """Copies one database for every work directory: MLflow takes seconds to make one."""

    def copy(path: Path) -> None:
        shutil.copyfile(request.getfixturevalue("empty_database"), path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_initialize", copy)
        yield


@pytest.fixture(autouse=True)
def own_database(request, monkeypatch) -> None:
    """Lets MLflow make the databases of a test that is about them."""
    if request.node.get_closest_marker("makes_database"):
        monkeypatch.setattr(database, "_initialize", INITIALIZE)


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Finds a file or folder of the data shared beside the checkout, or skips the test."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"needs ../shared/{name}, which is not beside this checkout")
        return path

    return find


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory) -> Iterator[str]:
    """The address of an S3 server: ``AWS_ENDPOINT_URL`` where set, else moto in a process."""
    if "AWS_ENDPOINT_URL" in os.environ:
        yield os.environ["AWS_ENDPOINT_URL"]
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    log = (tmp_path_factory.mktemp("s3") / "server.log").open("wb")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def bucket(s3_server: str, monkeypatch) -> str:
    """The URL of a new, empty bucket, with credentials for it in the environment."""
    settings = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, os.environ.get(name, value))
    name = f"gemix-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"
