"""A training that is killed at random moments ends as one that never was.

Four times, or as often as ``KILLS=20 pytest tests/gan/test_kill.py`` says.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np
import pytest
import torch

from gemix.gan.checkpoints.checkpoint import save_checkpoint
from gemix.gan.checkpoints.generator_io import load_generator, save_generator
from gemix.gan.training.loop import train
from gemix.gan.training.stages import resume_or_start
from gemix.io.storage import Store
from tests.gan.test_training import CPU, disks, spec_of, tiny_config
from tests.processes import FORKSERVER

KILLS = int(os.environ.get("KILLS", "3"))
CONFIG = tiny_config(kimg=0.04 * KILLS)  # five steps a kill


def run(folder: str, steps: Connection) -> None:
    """Trains from the newest checkpoint on; saves one after every step, and sends the step."""
    torch.set_num_threads(1)
    store = Store(folder)

    def on_step(state, values):
        save_checkpoint(store, state, spec_of(CONFIG))
        steps.send(state.step)

    state = train(resume_or_start(store, spec_of(CONFIG), CPU), disks(), CONFIG, on_step=on_step)
    save_generator(store, state, spec_of(CONFIG))
    steps.send("saved")


@contextlib.contextmanager
def training(folder: str) -> Iterator[tuple[Connection, BaseProcess]]:
    """A process that trains in a folder, and where it sends its steps to."""
    reader, writer = FORKSERVER.Pipe(duplex=False)
    process = FORKSERVER.Process(target=run, args=(folder, writer))
    process.start()
    writer.close()
    yield reader, process
    process.join()


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path):
    undisturbed, killed = str(tmp_path / "undisturbed"), str(tmp_path / "killed")
    with training(undisturbed) as (steps, _):
        steps.recv()
        began = time.monotonic()
        while steps.recv() != "saved":
            pass
        per_step = (time.monotonic() - began) / (CONFIG.steps - 1)
    rng = np.random.default_rng(0)
    for _ in range(KILLS):
        with training(killed) as (steps, process):
            for _ in range(rng.integers(1, 4)):
                steps.recv()
            time.sleep(rng.uniform(0, per_step))  # in a step, or while its checkpoint is written
            process.kill()
        assert process.exitcode == -signal.SIGKILL
    with training(killed) as (steps, process):
        first = steps.recv()
        while steps.recv() != "saved":
            pass
    assert process.exitcode == 0
    assert first > KILLS  # it went on, and did not begin anew
    one, other = (load_generator(Store(folder)) for folder in (undisturbed, killed))
    assert one.checksum == other.checksum
