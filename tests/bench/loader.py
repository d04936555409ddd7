"""How fast training images are read, beside how fast the fastest training step eats them.

``python -m tests.bench.loader [--json loader.json]``. All in one run and in turn, so that the
ratios hold on a busy machine too; images/s are of this machine and this moment.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from gemix.core.device import default_device
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.schema import to_columns, write_shard
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import TrainingDataset
from gemix.gan.models.architecture import Architecture
from gemix.gan.training.loop import train
from gemix.gan.training.registry import new_state
from gemix.io.storage import Store
from gemix.steps.gan_training.data import open_training_data
from jobs._runtime.ray_cluster import connect

CLASSES = ("a", "b", "c")
WANTED = 5.0  # times what the fastest step consumes
REPEATS = 3


def main() -> None:
    """Measures and prints a table; writes JSON where ``--json`` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--images", type=int, default=32768)
    parser.add_argument("--shard-rows", type=int, default=1024)
    parser.add_argument("--windows", type=int, default=4, help="of an epoch, when streaming")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--readers", type=int, default=torch.get_num_threads())
    parser.add_argument("--step-batch", type=int, default=4, help="of the training step")
    parser.add_argument("--step-images-per-s", type=float, help="measured elsewhere; not here then")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    connect()
    with tempfile.TemporaryDirectory() as folder:
        write_set(Store(folder), given.images, given.resolution, given.shard_rows)
        results = measure(folder, given)
    print(f"{'':<10}{'images/s':>12}{'times the step':>16}{'wanted':>9}")
    for name, row in results["readers"].items():
        ratio = row["times_the_step"]
        print(f"{name:<10}{row['images_per_s']:>12.0f}{ratio:>16.1f}{WANTED:>9.0f}")
    print(f"{'step':<10}{results['step_images_per_s']:>12.2f}")
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def measure(url: str, given: argparse.Namespace) -> dict:
    """The readers, `REPEATS` times in turn; the best of each counts, as it does for the step."""
    device, image_bytes = default_device(), given.resolution**2
    shuffle_gb = given.images / given.windows * image_bytes / 1e9
    speeds: dict[str, float] = {"memory": 0.0, "stream": 0.0}
    step = given.step_images_per_s or 0.0
    for _ in range(REPEATS):
        for name in speeds:
            config = GanConfig(batch=given.batch, data_loading=name, shuffle_gb=shuffle_gb)
            data = open_training_data(config, url, device, readers=given.readers)
            speeds[name] = max(speeds[name], reading_speed(data, given.batch, device))
            data.close()
        if not given.step_images_per_s:
            step = max(step, step_speed(url, given.step_batch, device))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "settings": {k: v for k, v in vars(given).items() if k != "json"},
        "step_images_per_s": step,
        "readers": {
            name: {"images_per_s": speed, "times_the_step": speed / step}
            for name, speed in speeds.items()
        },
    }


def reading_speed(data: TrainingDataset, batch: int, device: torch.device) -> float:
    """Images/s of one epoch as batches on the device, the wait for the first window left out."""
    data.real_batch(0, batch, range(batch))
    steps = len(data) // batch
    started = time.perf_counter()
    for step in range(1, steps + 1):
        data.real_batch(step, batch, range(batch))
    wait_for(device)
    return steps * batch / (time.perf_counter() - started)


def step_speed(url: str, batch: int, device: torch.device) -> float:
    """Images/s of the fastest of a few training steps of the paper's network."""
    manifest = Manifest.load(Store(url))
    config = GanConfig(batch=batch, mapping_layers=2, kimg=4 * batch / 1000, data_loading="memory")
    architecture = Architecture(
        resolution=manifest.resolution,
        img_channels=manifest.channels,
        label_dim=len(manifest.classes),
        mapping_layers=2,
        d_mapping_layers=2,
    )
    seconds, ends = [], [time.perf_counter()]

    def on_step(state, values) -> None:
        wait_for(device)
        ends.append(time.perf_counter())
        seconds.append(ends[-1] - ends[-2])

    data = open_training_data(config, url, device)
    train(new_state(architecture, config, device), data, config, on_step=on_step)
    return batch / min(seconds)


def write_set(store: Store, images: int, resolution: int, shard_rows: int) -> None:
    """Smooth shapes under noise, which compress worse than CT slices do."""
    shards = []
    for number, start in enumerate(range(0, images, shard_rows)):
        rows = min(shard_rows, images - start)
        labels = np.arange(rows) % len(CLASSES)
        columns = to_columns(
            np.stack(list(slices(number, rows, resolution))),
            np.eye(len(CLASSES))[labels],
            class_index=labels,
            patients=["p"] * rows,
            sources=["s"] * rows,
        )
        shards.append(write_shard(store, f"train-{number:05d}.parquet", columns, "train"))
    settings = {"kind": "real", "resolution": resolution, "channels": 1}
    Manifest.of(shards, classes=CLASSES, **settings).save(store)


def slices(seed: int, count: int, size: int) -> Iterator[np.ndarray]:
    """Images uint8 [1, size, size]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    for a, b in rng.uniform(1, 9, (count, 2)):
        shape = 110 + 100 * np.sin(a * x) * np.cos(b * y)
        yield (shape + rng.integers(0, 16, (size, size))).astype(np.uint8)[None]


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
