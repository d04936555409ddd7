"""How fast a folder of 512 x 512 scans becomes a set, beside the public StyleGAN2-ADA's tool.

    python -m tests.bench.prepare                                  # this implementation alone
    python -m tests.bench.prepare --peer ~/stylegan2-ada-pytorch   # both, in turn, in one run

Ours decodes, looks for the body, crops, resizes and writes checked shards; the peer decodes,
resizes the whole frame and writes PNG into a zip. Its tool is one process; ours is measured as one
and as ``--processes``, each with its share of the scans. Starting Python counts for both. Ray, the
search for copies and the gathering of parts are not in it: ``--ray`` times `gemix prepare` too.
The time of processors leaves out what other processes take.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from gemix.data.config import DataConfig, PhantomConfig
from gemix.data.preprocessing.decode import IMAGE_SUFFIXES, decode_image
from gemix.data.preprocessing.preprocess import preprocess
from gemix.data.preprocessing.windows import WINDOWS, apply_window
from gemix.data.scan import Scan
from gemix.data.shards.schema import to_columns, write_shard
from gemix.io.storage import Store

WANTED = 2.0  # times the peer
SIDE = 512
DISTINCT = 60  # phantom slices; rendering one takes longer than preparing it
SHARD_ROWS = 1024


def main() -> None:
    """Prints the table; writes JSON where ``--json`` says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--peer", help="a checkout of the public stylegan2-ada-pytorch")
    parser.add_argument("--folder", type=Path, help="of scans; phantom slices without")
    parser.add_argument("--kind", choices=("png", "jpg"), default="png", help="of phantom slices")
    parser.add_argument(
        "--images", type=int, default=4000, help="the scans come again until they are so many"
    )
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--ray", action="store_true", help="time the whole command as well")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--shards-of", nargs=2, metavar=("FOLDER", "DEST"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.shards_of:
        write_shards(*map(Path, given.shards_of), given.resolution)
        return
    with tempfile.TemporaryDirectory() as temporary:
        results = measure(Path(temporary), given)
    print(f"{'':<20}{'images/s':>10}{'ratio':>8}{'CPU ms an image':>17}")
    for name, row in results["tools"].items():
        print(f"{name:<20}{row['images_per_s']:>10.1f}{row['ratio']:>8.2f}{row['cpu_ms']:>17.2f}")
    print(f"wanted: {WANTED} times the peer")
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def measure(temporary: Path, given: argparse.Namespace) -> dict:
    """The tools, in turn; the median of each counts. `ratio` is to the peer, or to ours alone."""
    folders = {n: parts(temporary / f"scans-{n}", n, given) for n in sorted({1, given.processes})}
    output, size = temporary / "out", str(given.resolution)
    ours = [sys.executable, "-m", "tests.bench.prepare", "--resolution", size, "--shards-of"]
    tools = {
        f"gemix, {n} processes": [
            [*ours, str(folder), f"{output}/{i}"] for i, folder in enumerate(some)
        ]
        for n, some in folders.items()
    }
    (whole,) = folders[1]
    if given.peer:
        peer = [sys.executable, f"{given.peer}/dataset_tool.py", "--source", str(whole)]
        peer += ["--dest", f"{output}/0.zip", "--width", size, "--height", size]
        tools = {"peer, 1 process": [peer]} | tools
    if given.ray:
        settings = ["data.source=folder", f"data.path={whole}", f"data.resolution={size}"]
        tools["gemix prepare"] = [
            [sys.executable, "-m", "jobs.prepare", "-w", str(output), *settings]
        ]
    walls: dict[str, list[float]] = {name: [] for name in tools}
    cpus: dict[str, list[float]] = {name: [] for name in tools}
    for _ in range(given.repeats):
        for name, jobs in tools.items():
            output.mkdir()
            wall, cpu = seconds(jobs)
            walls[name].append(wall)
            cpus[name].append(cpu)
            shutil.rmtree(output)
    base = statistics.median(next(iter(walls.values())))
    settings = {k: str(v) for k, v in vars(given).items() if k not in ("json", "shards_of")}
    rows = {
        name: {
            "images_per_s": given.images / statistics.median(walls[name]),
            "ratio": base / statistics.median(walls[name]),
            "cpu_ms": 1e3 * statistics.median(cpus[name]) / given.images,
        }
        for name in tools
    }
    return {"settings": settings, "wanted": WANTED, "tools": rows}


def seconds(jobs: list[list[str]]) -> tuple[float, float]:
    """From the start of the first process to the end of the last, and of processors in them.

    Ray's workers are no children of the process that asks for them, and do not count.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
    began, used = time.perf_counter(), sum(os.times()[2:4])
    quiet = subprocess.DEVNULL
    running = [subprocess.Popen(job, env=environment, stdout=quiet, stderr=quiet) for job in jobs]
    codes = [process.wait() for process in running]
    if any(codes):
        sys.exit(f"exit codes {codes} of {jobs}")
    return time.perf_counter() - began, sum(os.times()[2:4]) - used


def parts(root: Path, processes: int, given: argparse.Namespace) -> list[Path]:
    """A folder of scans for each process, each with two class folders."""
    folders = [root / str(number) for number in range(processes)]
    files = scans(root, given)
    for number in range(given.images):
        file = files[number % len(files)]
        link = folders[number % processes] / "ab"[number % 4 // 2] / f"{number:06d}{file.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())
    return folders


def scans(root: Path, given: argparse.Namespace) -> list[Path]:
    """The files of the folder, or phantom slices under a lung window."""
    if given.folder:
        return sorted(f for f in given.folder.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
    # here, since it loads torch, which the process that is timed does without
    from gemix.data.phantom import CLASSES, render_slice

    root.mkdir(parents=True)
    config, made = PhantomConfig(), []
    for i in range(min(DISTINCT, given.images)):
        pixels = render_slice(config, CLASSES[i % 3], i, i % config.slices_per_patient, SIDE)
        made.append(root / f"{i}.{given.kind}")
        Image.fromarray(apply_window(pixels, *WINDOWS["lung"])).save(made[-1])
    return made


def write_shards(folder: Path, output: Path, resolution: int) -> None:
    """Our side of the comparison, one process: decode, preprocess, write."""
    config = DataConfig(source="folder", path=str(folder), resolution=resolution)
    files = sorted(folder.glob("*/*"))
    for start in range(0, len(files), SHARD_ROWS):
        part = files[start : start + SHARD_ROWS]
        images = np.stack(
            [
                preprocess(Scan(pixels=decode_image(f.read_bytes()), is_hounsfield=False), config)
                for f in part
            ]
        )
        labels = np.zeros(len(part), dtype=np.int64)
        columns = to_columns(
            images,
            np.eye(2)[labels],
            class_index=labels,
            patients=[f.stem for f in part],
            sources=[f.name for f in part],
        )
        write_shard(Store(output), f"train-{start:07d}.parquet", columns, "train")


if __name__ == "__main__":
    main()
