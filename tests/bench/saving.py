"""What checkpoints cost a training: steps beside the thread that writes one, and steps alone.

    python -m tests.bench.saving                       # the networks of the demo
    python -m tests.bench.saving --preset iqoth128 gan.batch=4

Both take turns in one run, in blocks of `--every` steps. A block with a checkpoint begins with it
and ends when it is written. Time on the clock is what a training waits; time of the processor
counts the thread's work in full, also on a core of its own, and is disturbed less by other
programs. Samples and metrics, which are made at the same steps, are not counted.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time

import numpy as np
import torch

from gemix.config import load
from gemix.core.device import cudnn_benchmark, default_device
from gemix.core.distributed import Workers
from gemix.gan.checkpoints.checkpoint import TrainingSpec
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.training.base_trainer import BaseTrainer
from gemix.gan.training.registry import METHODS, new_state
from gemix.io.storage import Store
from gemix.steps.gan_training.checkpoint_writer import CheckpointWriter
from tests.bench.gan_worker import synchronize

CLASSES = 3
CLOCKS = {"on the clock": time.perf_counter, "of the processor": time.process_time}


@cudnn_benchmark()
def main() -> None:
    """Print the cost of a checkpoint, as a share of the steps between two."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.saving")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--every", type=int, default=16, help="steps; of 16, R1 runs in one")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = load(options.preset, options.overrides)
    gan = config.gan
    shape = gan.architecture(
        resolution=config.data.resolution,
        img_channels=len(config.data.windows),
        label_dim=CLASSES,
    )
    rng, device = np.random.default_rng(0), default_device()
    images = rng.integers(
        0, 256, (256, shape.img_channels, shape.resolution, shape.resolution), dtype=np.uint8
    )
    labels = np.eye(CLASSES, dtype=np.float32)[rng.integers(CLASSES, size=256)]
    data = InMemoryDataset(images, labels, 0, device)
    spec = TrainingSpec(
        architecture=shape,
        config=gan,
        classes=tuple(f"class {number}" for number in range(CLASSES)),
        data_digest="",
    )
    trainer = METHODS[gan.method](new_state(shape, gan, device), data, gan, Workers())
    with tempfile.TemporaryDirectory() as folder:
        writer = CheckpointWriter(Store(folder), spec, logging.getLogger("bench"))
        ways = (None, options.every), (writer, options.every), (writer, 0)
        seconds = [[], [], []]
        for _ in range(options.rounds + 1):  # the first warms up
            for times, (saves, steps) in zip(seconds, ways, strict=True):
                times.append(block(trainer, saves, steps))
        size = sum(Store(folder).size(name) for name in Store(folder).list()) / 1e6
    interval = max(1, round(gan.snapshot_kimg * 1000 / gan.batch))
    print(f"{size / gan.keep_checkpoints:.1f} MB a checkpoint")
    for index, name in enumerate(CLOCKS):
        # the least of all rounds: other work disturbs the least the least
        alone, saving, save = (min(found[index] for found in times[1:]) for times in seconds)
        step, more = alone / options.every, saving - alone
        print(
            f"time {name}: a step {step * 1e3:.1f} ms, with a checkpoint {more * 1e3:+.0f} ms "
            f"({more / alone:+.1%} every {options.every} steps, "
            f"{more / (interval * step):+.2%} every {interval}, gan.snapshot_kimg); a checkpoint "
            f"without steps beside it {save * 1e3:.0f} ms, {save / (interval * step):.2%}"
        )


def block(trainer: BaseTrainer, writer: CheckpointWriter | None, steps: int) -> list[float]:
    """Return what steps take by each clock, in seconds, with a checkpoint if there is a writer."""
    synchronize(trainer.device)
    started = [clock() for clock in CLOCKS.values()]
    if writer:
        writer.submit(trainer.state)
    for _ in range(steps):
        trainer.run_step()
    if writer:
        writer.wait()
    synchronize(trainer.device)
    return [clock() - since for clock, since in zip(CLOCKS.values(), started, strict=True)]


if __name__ == "__main__":
    main()
