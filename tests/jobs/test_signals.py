"""Ctrl-C and SIGTERM end a training with its work saved, and the same command resumes it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from gemix.gan.checkpoints.checkpoint import checkpoints
from gemix.io.storage import Store
from gemix.io.workspace import Workspace

pytestmark = pytest.mark.slow
ENDLESS = ("gan.kimg=1000", "gan.snapshot_kimg=500", "metrics.images=0", "classifier.epochs=10000")
SECONDS = 300  # for what takes ten, on a machine that does other things beside
TRAINS = r"train-gan: StyleGAN2-ADA"


class Training:
    """A command in a process group of its own, as a shell starts it.

    Attributes:
        lines: of stderr, so far.
    """

    def __init__(self, step: str, workspace: Workspace, overrides: tuple[str, ...]):
        command = [sys.executable, "-m", "jobs._runtime.cli", step, "-w", workspace.workdir]
        self.process = subprocess.Popen(
            [*command, *overrides],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []

    def wait_for(self, pattern: str) -> None:
        """Read stderr up to a line."""
        for line in self.process.stderr:
            self.lines.append(line)
            if re.search(pattern, line):
                return
        pytest.fail(f"ended without {pattern}:\n{''.join(self.lines)}")

    def wait_for_library(self, name: str) -> None:
        """Wait until the process loads a shared library."""
        maps = Path(f"/proc/{self.process.pid}/maps")
        end = time.monotonic() + SECONDS
        while name not in maps.read_text():
            assert self.process.poll() is None and time.monotonic() < end
            time.sleep(0.01)

    def send(self, number: int) -> None:
        """Send Ctrl-C to the whole group, as a terminal does, or SIGTERM; read the answer."""
        send = os.killpg if number == signal.SIGINT else os.kill
        send(self.process.pid, number)
        self.wait_for(r"gemix: stopping")

    def end(self) -> int:
        """Return the exit code; fail if a process of the session is left."""
        self.lines += self.process.stderr.readlines()
        code = self.process.wait(SECONDS)
        end = time.monotonic() + 60
        while left := processes(self.process.pid):
            assert time.monotonic() < end, left
            time.sleep(0.2)
        return code


def processes(session: int) -> list[str]:
    command = ["ps", "-o", "pid,stat,args", "--no-headers", "-s", str(session)]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return [line for line in lines if "<defunct>" not in line]


def statuses(workspace: Workspace) -> list[str]:
    """Return the state of all MLflow runs of the work directory, the newest first."""
    uri = f"sqlite:///{workspace.workdir}/mlflow.db"
    runs = mlflow.MlflowClient(uri).search_runs(["1"], order_by=["attributes.start_time DESC"])
    return [run.info.status for run in runs]


@pytest.fixture
def workspace(prepared, tmp_path) -> Workspace:
    """A work directory with prepared data, of this test alone."""
    shutil.copytree(prepared.data, tmp_path / "data")
    return Workspace.at(tmp_path)


@pytest.fixture
def start(workspace, tiny_overrides) -> Iterator[Callable[..., Training]]:
    started: list[Training] = []

    def begin(step: str, *overrides: str) -> Training:
        started.append(Training(step, workspace, (*tiny_overrides, *ENDLESS, *overrides)))
        return started[-1]

    yield begin
    for training in started:
        if training.process.poll() is None:
            os.killpg(training.process.pid, signal.SIGKILL)
            training.process.wait()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_gan_training_saves_a_checkpoint_and_resumes(start, workspace, workers):
    training = start("train-gan", f"compute.workers={workers}")
    training.wait_for(TRAINS)
    time.sleep(1)
    training.send(signal.SIGINT)
    assert training.lines[-1].endswith("stopping after this step; again to stop now\n")
    assert training.end() == 130
    assert training.lines[-1] == "gemix train-gan: stopped; the same command resumes\n"
    assert "Traceback" not in "".join(training.lines)
    assert statuses(workspace) == ["KILLED"]
    assert len(checkpoints(Store(workspace.gan))) == 1
    if workers == 0:  # the rest is the same for both
        again = start("train-gan", "compute.workers=0")
        again.wait_for("train-gan: resumes at")
        again.send(signal.SIGTERM)
        assert again.end() == 143
        assert statuses(workspace) == ["KILLED", "KILLED"]


def test_a_signal_while_pytorch_is_imported_is_answered(start, workspace):
    training = start("train-gan")
    training.wait_for_library("libtorch_cpu")
    training.send(signal.SIGINT)
    assert training.end() == 130
    assert "Traceback" not in "".join(training.lines)
    assert not Path(workspace.gan).exists()


def test_a_training_that_has_nothing_to_save_stops_at_once(start, workspace):
    """Also its workers, which a terminal's Ctrl-C does not reach."""
    training = start("train-classifier", "compute.workers=1")
    training.wait_for("train-classifier: real-seed")
    training.send(signal.SIGTERM)
    assert training.lines[-1].endswith("gemix: stopping\n")
    assert training.end() == 143
    assert "Traceback" not in "".join(training.lines)
    assert statuses(workspace) == ["KILLED"]
