"""Weak scaling of GAN training, and what the loop costs under Ray Train.

    python tests/bench/scaling.py --workers 1,2

For each number of workers the same steps run three times: in bare processes joined by
torch.distributed, with messages sent after the backward pass and during it, and under Ray Train.
Every worker has a batch of the same size and the same number of threads.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from gemix.config import ComputeConfig
from gemix.core.device import default_device
from gemix.core.distributed import Workers
from gemix.core.gradient_buckets import GradientBuckets
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.models.architecture import Architecture
from gemix.gan.training.loop import train
from gemix.gan.training.registry import new_state

WARM_UP = 17  # steps, so that every lazy phase has run


class TimedWork:
    """A message on its way; the time that the step waits for it is counted."""

    def __init__(self, work: dist.Work):
        self.work = work

    def wait(self) -> None:
        """Wait until the message is summed."""
        started = time.perf_counter()
        self.work.wait()
        TimedWorkers.seconds += time.perf_counter() - started


class TimedWorkers(Workers):
    """Workers that take the time for which a step waits for messages."""

    seconds = 0.0

    def all_reduce_async(self, value):
        """See :class:`Workers`."""
        return TimedWork(super().all_reduce_async(value))

    def all_reduce_mean(self, value):
        """See :class:`Workers`."""
        started = time.perf_counter()
        result = super().all_reduce_mean(value)
        TimedWorkers.seconds += time.perf_counter() - started
        return result


def loop(task: dict[str, Any], context: object = None) -> None:
    """Trains, and on rank 0 writes images/s and the share of communication to ``task["out"]``."""
    if not task["overlap"]:  # every message is sent after the backward pass
        GradientBuckets.start = lambda self: None
    torch.set_num_threads(task["threads"])
    current, device = Workers.from_process_group(), default_device()
    workers = TimedWorkers(current.rank, current.size)
    batch = task["batch"] * workers.size
    steps = WARM_UP + task["steps"]
    config = GanConfig(
        batch=batch,
        kimg=batch * steps / 1000,
        precision=task["precision"],
        channel_base=task["channel_base"],
        channel_max=task["channel_max"],
    )
    size = task["resolution"]
    shape = Architecture(
        resolution=size,
        img_channels=1,
        label_dim=3,
        channel_base=task["channel_base"],
        channel_max=task["channel_max"],
    )
    rng = np.random.default_rng(0)
    labels = np.eye(3, dtype=np.float32)[np.arange(256) % 3]
    images = rng.integers(0, 255, (256, 1, size, size), dtype=np.uint8)
    data = InMemoryDataset(images, labels, 0, device)
    began = 0.0

    def on_step(state, values):
        nonlocal began
        if state.step == WARM_UP:
            began, TimedWorkers.seconds = time.perf_counter(), 0.0

    train(new_state(shape, config, device), data, config, workers=workers, on_step=on_step)
    seconds = time.perf_counter() - began
    if workers.rank == 0:
        figures = {
            "images_per_s": batch * task["steps"] / seconds,
            "communication": TimedWorkers.seconds / seconds,
        }
        Path(task["out"]).write_text(json.dumps(figures))


def bare_worker(rank: int, size: int, task: dict[str, Any]) -> None:
    """One process of the bare run."""
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    place = f"file://{task['out']}.rendezvous"
    dist.init_process_group(backend, init_method=place, rank=rank, world_size=size)
    loop(task)
    dist.destroy_process_group()


def bare(size: int, task: dict[str, Any]) -> None:
    """The loop in processes of its own."""
    mp.spawn(bare_worker, args=(size, task), nprocs=size)


def under_ray(size: int, task: dict[str, Any]) -> None:
    """The loop in workers of Ray Train."""
    from jobs._runtime.ray_cluster import connect, worker_resources
    from jobs._runtime.ray_train import fit

    connect()
    compute = ComputeConfig(workers=size, cpus_per_worker=task["threads"])
    fit("bench", loop, task, compute, worker_resources(compute), f"{task['out']}.ray")


RUNS = {
    "bare, blocking": (bare, False),
    "bare, overlaps": (bare, True),
    "Ray": (under_ray, True),
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--batch", type=int, default=16, help="of each worker")
    parser.add_argument("--steps", type=int, default=32, help="after the warm-up")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--channel-base", type=int, default=1024)
    parser.add_argument("--channel-max", type=int, default=128)
    parser.add_argument("--precision", default="auto")
    task = vars(parser.parse_args())
    print(f"{'workers':>7}{'in':>16}{'images/s':>10}{'efficiency':>12}{'communication':>15}")
    alone = None
    for size in map(int, task.pop("workers").split(",")):
        speeds = {}
        for name, (run, overlap) in RUNS.items():
            if size == 1 and not overlap:
                continue
            with tempfile.TemporaryDirectory() as folder:
                out = f"{folder}/figures.json"
                run(size, task | {"out": out, "overlap": overlap})
                figures = json.loads(Path(out).read_text())
            speed = speeds[name] = figures["images_per_s"]
            alone = alone or speed / size
            print(
                f"{size:>7}{name:>16}{speed:>10.2f}{speed / size / alone:>12.0%}"
                f"{figures['communication']:>15.1%}",
                flush=True,
            )
        ray = speeds["bare, overlaps"] / speeds["Ray"] - 1
        print(f"{'':>7}  Ray takes {ray:+.1%} of a step's time")


if __name__ == "__main__":
    main()
