"""Does prepare stay linear in time and flat in memory when the archive grows tenfold?

``python -m tests.bench.scale [--images 10000] [--json scale.json]`` prepares phantom archives of
so many slices and of ten times as many, each by ``gemix prepare`` in a process of its own, and
watches the memory of that process and of its workers. Seconds count from the first work to the
last, without the start of Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gemix.data.shards.manifest import Manifest
from gemix.io.storage import Store

CLASSES = 3
SLICES = 10  # a patient
_EVERY = 0.25  # seconds between looks at the memory


def main() -> None:
    """Measures and prints a table; writes JSON where ``--json`` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--shard-mb", type=float, default=8)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = [measure(given, images) for images in (given.images, 10 * given.images)]
    print(f"{'images':>8}{'shards':>8}{'s':>8}{'images/s':>10}{'driver MB':>11}{'worker MB':>11}")
    for row in rows:
        print(
            f"{row['images']:>8}{row['shards']:>8}{row['seconds']:>8.0f}"
            f"{row['images'] / row['seconds']:>10.0f}"
            f"{row['driver_mb']:>11.0f}{row['worker_mb']:>11.0f}"
        )
    few, many = rows
    ratio = many["seconds"] / few["seconds"] * few["images"] / many["images"]
    print(f"time an image, large over small: {ratio:.2f}")
    print(f"driver, large over small: {many['driver_mb'] / few['driver_mb']:.2f}")
    print(f"largest worker, large over small: {many['worker_mb'] / few['worker_mb']:.2f}")
    if given.json:
        result = {"machine": platform.processor(), "cores": os.cpu_count(), "rows": rows}
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measure(given: argparse.Namespace, images: int) -> dict[str, float]:
    """Prepares an archive of `images` slices; peak memory in MB, time in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "jobs.prepare", "-w", folder),
            f"data.resolution={given.resolution}",
            f"data.shard_mb={given.shard_mb}",
            f"data.phantom.slices_per_patient={SLICES}",
            f"data.phantom.patients_per_class={images // CLASSES // SLICES}",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            first = process.stdout.readline()  # the listing is done
            started = time.monotonic()
            peaks = watch(process)
            seconds = time.monotonic() - started
            rest = process.stdout.read()
        if process.returncode:
            raise SystemExit(f"gemix prepare failed:\n{first}{rest}")
        manifest = Manifest.load(Store(f"{folder}/data"))
    return {
        "images": manifest.images(),
        "shards": len(manifest.shards),
        "seconds": seconds,
        "driver_mb": peaks[0] / 1e6,
        "worker_mb": peaks[1] / 1e6,
    }


def watch(process: subprocess.Popen[str]) -> tuple[int, int]:
    """Peak bytes of the process, and of the largest Ray worker, until it ends (Linux)."""
    driver = worker = 0
    while process.poll() is None:
        driver = max(driver, own_bytes(Path(f"/proc/{process.pid}")))
        for folder in Path("/proc").glob("[0-9]*"):
            worker = max(worker, own_bytes(folder) if is_worker(folder) else 0)
        time.sleep(_EVERY)
    return driver, worker


def is_worker(folder: Path) -> bool:
    """Whether the process is one of Ray's workers, which carry the name of their task."""
    try:
        return (folder / "cmdline").read_bytes().startswith(b"ray::")
    except OSError:  # it has ended
        return False


def own_bytes(folder: Path) -> int:
    """Resident bytes of its own: what Ray's object store shares does not count."""
    try:
        _, resident, shared, *_ = (folder / "statm").read_text().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
