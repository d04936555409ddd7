"""GAN training speed, and beside it that of a checkout of the public StyleGAN2-ADA.

    python tests/bench/gan.py                                  # this implementation alone
    python tests/bench/gan.py --peer ~/stylegan2-ada-pytorch   # both, in turn, in one run
    python tests/bench/gan.py --compile off,on                 # with and without torch.compile

On a GPU the defaults are its setting and both ways.

Each measurement is a process of its own, so that peak memory is its own too. A training step's
time is put together from its phases, each timed by itself and weighted by how often it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

# name: resolution, channel_base, channel_max, batch
SETTINGS = {
    "32": (32, 512, 64, 8),
    "64": (64, 4096, 128, 16),
    "128-half": (128, 8192, 512, 8),
    "128": (128, 16384, 512, 4),
    "128-gpu": (128, 16384, 512, 64),
}


def measure(
    engine: str, setting: str, options: argparse.Namespace, precision: str, compile: str
) -> dict:
    """One row, measured in a new process."""
    resolution, channel_base, channel_max, batch = SETTINGS[setting]
    task = {
        "engine": engine,
        "setting": setting,
        "resolution": resolution,
        "channel_base": channel_base,
        "channel_max": channel_max,
        "batch": options.batch or batch,
        "precision": precision,
        "repeats": options.repeats,
        "threads": options.threads,
        "peer": options.peer,
        "compile": compile,
    }
    worker = Path(__file__).with_name("gan_worker.py")
    done = subprocess.run(
        [sys.executable, str(worker), json.dumps(task)], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        return task | {"error": f"exit code {done.returncode}"}
    return task | json.loads(done.stdout.splitlines()[-1])


def rows(options: argparse.Namespace) -> list[dict]:
    """All rows: for each setting the peer first, then ours in each precision, compiled or not."""
    table = []
    for setting in options.settings.split(","):
        engines = [("peer", "float32", "off")] if options.peer else []
        engines += [
            ("gemix", precision, compile)
            for precision in options.precisions.split(",")
            for compile in options.compile.split(",")
        ]
        for engine, precision, compile in engines:
            row = measure(engine, setting, options, precision, compile)
            if "error" not in row:
                same = (r for r in table if r["setting"] == setting and "error" not in r)
                base = next(same, row)
                row["ratio"] = row["images_per_s"] / base["images_per_s"]
            table.append(row)
            print(line(row), flush=True)
    return table


HEADER = (
    f"{'setting':<9}{'engine':<7}{'precision':<10}{'compile':<8}{'batch':>6}{'images/s':>10}"
    f"{'ratio':>7}{'TFLOP/s':>9}{'of ceiling':>11}{'peak MiB':>10}"
    "  phases (share of a step's time)"
)


def line(row: dict) -> str:
    """A row of the printed table."""
    name = (
        f"{row['setting']:<9}{row['engine']:<7}{row['precision']:<10}{row['compile']:<8}"
        f"{row['batch']:>6}"
    )
    if "error" in row:
        return f"{name}  {row['error']}"
    shares = ", ".join(f"{phase} {share:.0%}" for phase, share in row["shares"].items())
    return (
        f"{name}{row['images_per_s']:>10.2f}{row['ratio']:>7.2f}{row['tflops']:>9.3f}"
        f"{row['of_ceiling']:>11.0%}{row['peak_mib']:>10.0f}  {shares}"
    )


def main() -> None:
    """Prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--peer", help="a checkout of the public stylegan2-ada-pytorch")
    gpu = torch.cuda.is_available()
    parser.add_argument(
        "--settings", default="128-gpu" if gpu else "64,128", help=", ".join(SETTINGS)
    )
    parser.add_argument("--precisions", default="float32,auto")
    parser.add_argument("--batch", type=int, help="instead of the setting's own")
    parser.add_argument("--repeats", type=int, default=3, help="of each phase, after one warm-up")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--compile",
        default="off,on" if gpu else "off",
        help="gan.compile of our rows: off, on or off,on",
    )
    parser.add_argument("--out", default="bench-gan.json")
    options = parser.parse_args()
    print(HEADER, flush=True)
    Path(options.out).write_text(json.dumps(rows(options), indent=2) + "\n")


if __name__ == "__main__":
    main()
