"""How fast shards are read into torch batches, beside PNG files in a zip.

``python -m tests.bench.reading [--json reading.json]``. The readers take turns in one run, so the
ratios hold on a busy machine too. Both sides have as many cores as ``--cores`` says: ours as
threads of Arrow, the zip as workers of PyTorch's DataLoader (none for one core: it reads itself).
Images per second of processor time leave out what other processes take.

Each turn reads twice, and the second time counts. The first time, shown as "cold", memory that the
system took back in between is handed out anew, which on a virtual machine may take longer than
reading does.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from gemix.data.config import DataConfig, PhantomConfig
from gemix.data.phantom import CLASSES, render_slice
from gemix.data.preprocessing.preprocess import preprocess
from gemix.data.scan import Scan
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.data.shards.schema import to_columns, write_shard
from gemix.io.storage import Store

WANTED = {"shards": 20_000, "ratio": 5}  # images/s a core; times the zip
PATIENTS = 40  # their slices come again and again, too far apart for the compression to see
REPEATS = 5
LEVELS = {"zip, PNG stored": 0, "zip, PNG deflated": 6}  # the public dataset tool stores


class ZipOfPng(Dataset):
    """Images of a zip archive, opened anew in each worker."""

    def __init__(self, path: Path):
        self.path = path
        self.archive: zipfile.ZipFile | None = None
        with zipfile.ZipFile(path) as archive:
            self.names = archive.namelist()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.archive is None:
            self.archive = zipfile.ZipFile(self.path)
        with self.archive.open(self.names[index]) as file:
            return torch.from_numpy(np.array(Image.open(file))[None])


def main() -> None:
    """Measures and prints a table; writes JSON where ``--json`` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--images", type=int, default=16384)
    parser.add_argument("--shard-rows", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    for limit in (pa.set_cpu_count, pa.set_io_thread_count, torch.set_num_threads):
        limit(given.cores)
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), given)
    print(f"{'':<20}{'MB':>7}{'images/s':>10}{'per core':>10}{'shards are':>12}{'cold':>10}")
    for name, row in results["readers"].items():
        print(
            f"{name:<20}{row['megabytes']:>7.1f}{row['images_per_s']:>10.0f}"
            f"{row['images_per_core_s']:>10.0f}{row['ratio']:>11.1f}x{row['cold']:>10.0f}"
        )
    print(f"wanted: {WANTED['shards']} images a second a core, {WANTED['ratio']}x")
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, given: argparse.Namespace) -> dict:
    """The readers, `REPEATS` times in turn; the best of each counts."""
    images = slices(given.images, given.resolution)
    write_set(Store(folder / "shards"), images, given.shard_rows)
    readers = {"shards": lambda: from_shards(str(folder / "shards"), given.batch)}
    paths = {"shards": folder / "shards"}
    for name, level in LEVELS.items():
        paths[name] = folder / f"{level}.zip"
        write_zip(paths[name], images, level)
        readers[name] = lambda path=paths[name]: from_zip(path, given.batch, given.cores)
    walls, cpus, colds = {}, {}, {}
    for _ in range(REPEATS):
        for name, read in readers.items():
            cold, _ = timed(read, given.images)
            wall, cpu = timed(read, given.images)
            walls[name] = min(wall, walls.get(name, wall))
            cpus[name] = min(cpu, cpus.get(name, cpu))
            colds[name] = min(cold, colds.get(name, cold))
    rows = {
        name: {
            "megabytes": size_of(paths[name]) / 1e6,
            "images_per_s": given.images / walls[name],
            "images_per_core_s": given.images / cpus[name],
            "ratio": walls[name] / walls["shards"],
            "cold": given.images / colds[name],
        }
        for name in readers
    }
    settings = {k: v for k, v in vars(given).items() if k != "json"}
    return {"settings": settings, "wanted": WANTED, "readers": rows}


def timed(read: Callable[[], Iterator[torch.Tensor]], images: int) -> tuple[float, float]:
    """Seconds on the clock, and of processors in this process and its workers."""
    began, used = time.perf_counter(), sum(os.times()[:4])
    count = sum(len(batch) for batch in read())
    assert count == images
    return time.perf_counter() - began, sum(os.times()[:4]) - used


def from_shards(url: str, batch: int) -> Iterator[torch.Tensor]:
    """Batches uint8 [B, 1, R, R], after every file was held against its SHA-256."""
    yield from torch.from_numpy(read_images([url], "train").images).split(batch)


def from_zip(path: Path, batch: int, cores: int) -> Iterator[torch.Tensor]:
    """The same from a zip; nothing but the zip's own CRC-32 is checked."""
    workers = cores if cores > 1 else 0
    yield from DataLoader(ZipOfPng(path), batch_size=batch, num_workers=workers)


def slices(count: int, resolution: int) -> np.ndarray:
    """Phantom slices, uint8 [N, 1, R, R]."""
    config, data = PhantomConfig(), DataConfig(resolution=resolution)
    made = [
        preprocess(
            Scan(
                pixels=render_slice(config, CLASSES[patient % 3], patient, number, resolution),
                is_hounsfield=True,
            ),
            data,
        )
        for patient in range(PATIENTS)
        for number in range(config.slices_per_patient)
    ]
    return np.stack(made)[np.arange(count) % len(made)]


def write_set(store: Store, images: np.ndarray, shard_rows: int) -> None:
    """Shards with names and labels as `gemix prepare` writes them."""
    shards = []
    for start in range(0, len(images), shard_rows):
        rows = range(start, min(start + shard_rows, len(images)))
        labels = np.array(rows) % len(CLASSES)
        columns = to_columns(
            images[rows.start : rows.stop],
            np.eye(len(CLASSES))[labels],
            class_index=labels,
            patients=[f"patient {row // 6}" for row in rows],
            sources=[f"scans/{row // 6}/slice {row}.png" for row in rows],
        )
        shards.append(write_shard(store, f"train-{start:07d}.parquet", columns, "train"))
    settings = {"kind": "real", "resolution": images.shape[-1], "channels": 1}
    Manifest.of(shards, classes=CLASSES, **settings).save(store)


def write_zip(path: Path, images: np.ndarray, level: int) -> None:
    """One PNG an image, put into the zip as it is."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number, image in enumerate(images):
            file = io.BytesIO()
            Image.fromarray(image[0]).save(file, "png", compress_level=level)
            archive.writestr(f"{number // 1000:05d}/img{number:08d}.png", file.getvalue())


def size_of(path: Path) -> int:
    """Bytes of a file, or of a folder's files."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


if __name__ == "__main__":
    main()
