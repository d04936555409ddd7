"""Everything that only a GPU can show, in one command, ordered by worth.

    python -m tests.gpu.run --minutes 9 --out DIR --parity DIR --scans DIR --peer CHECKOUT
    python -m tests.gpu.run --minutes 9 --out DIR --only training --scans DIR --start DIR

It needs torch, numpy, safetensors, pyarrow, Pillow and timm; no Ray, MLflow or pytest. A stage is
a process with a time limit of its own, and writes what it has after each measurement, so that a run
that is cut off keeps what it had. ``--parity`` is a folder of reference numbers of the public
StyleGAN2-ADA, ``--peer`` a checkout of it, ``--scans`` a set that ``gemix prepare`` wrote,
``--start`` the result of an earlier run whose generator the training goes on from. Without a GPU
the same stages run on the CPU with ``--tiny`` networks, to test the kit itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

# name: seconds that it may take at most, and the least that it is started with
STAGES = {
    "correctness": (150, 15),
    "speed": (180, 20),
    "kernels": (60, 15),
    "sampling": (60, 20),
    "compiled": (90, 30),
    "training": (10**9, 30),
}


def main() -> None:
    """Run the stages, then write ``summary.md``."""
    options = parser().parse_args()
    end = time.monotonic() + 60 * options.minutes
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    stages = options.only.split(",") if options.only else list(STAGES)
    if options.peer and torch.cuda.is_available() and "speed" in stages:
        start_build(options.peer, out)
    for name in stages:
        most, least = STAGES[name]
        if options.tiny:  # on a CPU, which may do other things beside
            most *= 5
        left = min(most, end - time.monotonic() - 3)
        if left < min(least, most):
            print(f"{name}: skipped, {max(0, left):.0f} s are left", flush=True)
            continue
        run_stage(name, left, out, options)
        write_summary(out)


def start_build(peer: str, out: Path) -> None:
    """Build the CUDA extensions of the public code beside the first stage; it takes a minute."""
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(out.resolve().parent / "extensions"))
    with (out / "build.log").open("w") as log:
        command = [sys.executable, "-m", "tests.bench.peer", peer]
        subprocess.Popen(command, stdout=log, stderr=log)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(prog="python -m tests.gpu.run", description=__doc__)
    found.add_argument("--minutes", type=float, default=9)
    found.add_argument("--out", required=True)
    found.add_argument("--only", help="stages to run, separated by commas")
    found.add_argument("--parity", default="")
    found.add_argument("--peer", default="")
    found.add_argument("--scans", default="")
    found.add_argument("--start", default="")
    found.add_argument("--tiny", action="store_true", help="small networks, few steps")
    return found


def run_stage(name: str, seconds: float, out: Path, options: argparse.Namespace) -> None:
    """Run one stage in a process, at most `seconds` and then some to end in order."""
    task = {
        "out": str(out),
        "seconds": seconds,
        "parity": options.parity,
        "peer": options.peer,
        "scans": options.scans,
        "start": options.start,
        "tiny": options.tiny,
    }
    # compiled kernels of one stage serve the next
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(out.resolve().parent / "inductor-cache")}
    command = [sys.executable, "-m", f"tests.gpu.{name}", json.dumps(task)]
    started = time.monotonic()
    print(f"== {name} (at most {seconds:.0f} s)", flush=True)
    try:
        code = subprocess.run(command, timeout=seconds, env=os.environ | cache).returncode
        ended = "finished" if code == 0 else f"ended with code {code}"
    except subprocess.TimeoutExpired:
        ended = "was cut off"
    print(f"== {name} {ended} after {time.monotonic() - started:.0f} s", flush=True)


def write_summary(out: Path) -> None:
    """Put all results so far on one page."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    lines = [f"# GPU kit on {device}, torch {torch.__version__}", ""]
    for name in STAGES:
        path = out / f"{name}.json"
        if not path.exists():
            continue
        lines += [f"## {name}", ""]
        rows = json.loads(path.read_text())
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines += [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        lines += [f"| {' | '.join(_cell(row.get(key)) for key in columns)} |" for row in rows]
        lines.append("")
    (out / "summary.md").write_text("\n".join(lines))


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


if __name__ == "__main__":
    main()
