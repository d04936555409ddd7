"""A training that is killed at random moments ends as one that never was.

Four times, or as often as ``KILLS=20 pytest tests/gan/test_kill.py`` says.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from gemix.gan.checkpoints.checkpoint import save_checkpoint
from gemix.gan.checkpoints.generator_io import load_generator, save_generator
from gemix.gan.training.loop import train
from gemix.gan.training.stages import resume_or_start
from gemix.io.storage import Store
from tests.gan.test_training import CPU, disks, spec_of, tiny_config

ROOT = Path(__file__).resolve().parents[2]

KILLS = int(os.environ.get("KILLS", "4"))
CONFIG = tiny_config(kimg=0.04 * KILLS)  # five steps a kill


def run(folder: str) -> None:
    """Trains from the newest checkpoint on, with a checkpoint and a line after every step."""
    torch.set_num_threads(1)
    store = Store(folder)

    def on_step(state, values):
        save_checkpoint(store, state, spec_of(CONFIG))
        print(state.step, flush=True)

    state = train(resume_or_start(store, spec_of(CONFIG), CPU), disks(), CONFIG, on_step=on_step)
    save_generator(store, state, spec_of(CONFIG))


def start(folder: str) -> subprocess.Popen:
    """A process that trains in a folder."""
    code = f"from tests.gan.test_kill import run; run({folder!r})"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path):
    undisturbed, killed = str(tmp_path / "undisturbed"), str(tmp_path / "killed")
    with start(undisturbed) as process:
        process.stdout.readline()
        began = time.monotonic()
        process.stdout.read()
        per_step = (time.monotonic() - began) / (CONFIG.steps - 1)
    rng = np.random.default_rng(0)
    for _ in range(KILLS):
        with start(killed) as process:
            for _ in range(rng.integers(1, 4)):
                process.stdout.readline()
            time.sleep(rng.uniform(0, per_step))  # in a step, or while its checkpoint is written
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    with start(killed) as process:
        first = int(process.stdout.readline())
        process.stdout.read()
    assert process.returncode == 0
    assert first > KILLS  # it went on, and did not begin anew
    one, other = (load_generator(Store(folder)) for folder in (undisturbed, killed))
    assert one.checksum == other.checksum
