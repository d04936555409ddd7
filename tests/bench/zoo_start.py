"""What a start from the zoo is worth: KID against kimg on other scans, from scratch and from it.

    python -m tests.bench.zoo_start --scans DIR --start zoo:phantom64 --kimg 10 --seeds 2

trains networks of the start's widths on the same scans (a folder of one class a folder) once for
each seed and start, and writes the KID of each snapshot to ``curves.json`` and ``curves.png`` in
``--workdir``. A training that was stopped resumes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from gemix.config import PipelineConfig, load
from gemix.core.errors import AlreadyFinishedError
from gemix.gan.checkpoints.generator_io import load_generator
from gemix.io.results import read_log
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.prepare import prepare
from gemix.steps.train_gan import train_gan
from gemix.zoo import open_pretrained

WIDTHS = ("z_dim", "w_dim", "mapping_layers", "channel_base", "channel_max")
SETTINGS = (
    *("gan.batch=16", "gan.snapshot_kimg=1", "gan.ema_kimg=2", "gan.ada_kimg=100"),
    *("gan.g_lr=0.003", "gan.d_lr=0.003", "gan.keep_checkpoints=1"),
    *("metrics.images=1000", "metrics.real_images=1000", "metrics.every=1", "metrics.budget=1"),
    *("metrics.extractor=timm-random:resnet18d", "compute.workers=0"),
)


def main() -> None:
    """Prepare the scans, train with each seed and start, and write the curves."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.zoo_start")
    parser.add_argument("--scans", required=True, help="folder of scans, one class a folder")
    parser.add_argument("--start", default="zoo:phantom64")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--kimg", type=float, default=10)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workdir", default="runs/zoo-start")
    parser.add_argument("overrides", nargs="*", help="section.key=value")
    options = parser.parse_args()
    start = load_generator(open_pretrained(options.start)).network.architecture
    config = load(
        "demo",
        [
            *("data.source=folder", f"data.path={options.scans}"),
            f"data.resolution={options.resolution}",
            *SETTINGS,
            *(f"gan.{name}={getattr(start, name)}" for name in WIDTHS),
            f"gan.kimg={options.kimg}",
            *options.overrides,
        ],
    )
    curves: dict[str, list[list[tuple[float, float, float]]]] = {"scratch": [], options.start: []}
    for seed in range(options.seeds):
        for name, runs in curves.items():
            runs.append(train(config, options, name, seed))
            print(name, "seed", seed, [(k, round(v, 4)) for k, v, _ in runs[-1]], flush=True)
    folder = Path(options.workdir)
    (folder / "curves.json").write_text(json.dumps(curves))
    draw(curves, folder / "curves.png")


def draw(curves: dict[str, list[list[tuple[float, float, float]]]], path: Path) -> None:
    """Draw KID against kimg, a line a training."""
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for (name, runs), color in zip(curves.items(), ("#888888", "#0b5fa5"), strict=True):
        for number, run in enumerate(runs):
            kimg, values, _ = np.array(run).T
            label = f"{name}, {len(runs)} seeds" if number == 0 else None
            axes.plot(kimg, values, color=color, marker=".", label=label)
    axes.set(xlabel="kimg", ylabel="KID", yscale="log")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def train(
    config: PipelineConfig, options: argparse.Namespace, name: str, seed: int
) -> list[tuple[float, float, float]]:
    """Train once; return kimg, KID and its standard error of each snapshot."""
    data = Workspace.at(f"{options.workdir}/data")
    if not Store(data.data).exists("manifest.json"):
        prepare(config, data)
    folder = Path(options.workdir) / f"{name.replace(':', '-')}-seed{seed}"
    folder.mkdir(exist_ok=True)
    if not (folder / "data").exists():
        (folder / "data").symlink_to(Path(data.data).absolute())
    start = None if name == "scratch" else name
    gan = dataclasses.replace(config.gan, seed=seed, init_from=start)
    workspace = Workspace.at(folder)
    with contextlib.suppress(AlreadyFinishedError):
        train_gan(dataclasses.replace(config, gan=gan), workspace)
    lines = read_log(Store(workspace.gan))
    return [(row["kimg"], row["kid"], row["kid_error"]) for row in lines if "kid" in row]


if __name__ == "__main__":
    main()
