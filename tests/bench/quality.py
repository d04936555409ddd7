"""Does image quality pay for the fast path? KID after the same training in two precisions.

``python -m tests.bench.quality [--data DIR] [--kimg 6]`` trains the same networks on the same
images in the same order, in float32 and in bfloat16, once for each seed, and measures KID of each
against the training images. What the seeds differ by is the noise that a difference between the
precisions must be held against. ``--data`` is the ``data`` directory of a work directory; without
it phantom slices of 32 x 32 pixels are prepared.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from gemix.core.device import default_device
from gemix.core.distributed import Workers
from gemix.data.config import DataConfig, PhantomConfig
from gemix.data.prepare import prepare_serial
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.data.sources import open_source
from gemix.evaluation.image_quality.config import MetricsConfig
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.models.architecture import Architecture
from gemix.gan.training.loop import train
from gemix.gan.training.registry import new_state
from gemix.io.storage import Store
from gemix.steps.gan_training.evaluator import Evaluator

PRECISIONS = ("float32", "bfloat16")


def main() -> None:
    """Prints a line a training and the verdict; writes JSON where ``--json`` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="prepared images; phantom slices without")
    parser.add_argument("--kimg", type=float, default=6)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--channel-base", type=int, default=1024)
    parser.add_argument("--channel-max", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000, help="that KID is measured on")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.data or phantom(f"{folder}/data")
        rows = [
            measure(url, f"{folder}/cache", precision, seed, given)
            for seed in range(given.seeds)
            for precision in PRECISIONS
        ]
    kid = {p: np.array([row["kid"] for row in rows if row["computed_in"] == p]) for p in PRECISIONS}
    difference = kid["bfloat16"] - kid["float32"]
    print(
        f"bfloat16 - float32: {difference.mean():+.4f} (of each seed: "
        f"{', '.join(f'{one:+.4f}' for one in difference)}); seeds alone differ by "
        f"{np.ptp(kid['float32']):.4f} in float32"
    )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def phantom(url: str) -> str:
    """Prepares phantom slices."""
    drawn = PhantomConfig(patients_per_class=100, slices_per_patient=3, conspicuity=1.0)
    config = DataConfig(resolution=32, phantom=drawn)
    prepare_serial(open_source(config), config, Store(url))
    return url


def measure(url: str, cache: str, precision: str, seed: int, given: argparse.Namespace) -> dict:
    """One training and its KID."""
    device, real = default_device(), read_images([url], "train")
    manifest = Manifest.load(Store(url))
    widths = {"channel_base": given.channel_base, "channel_max": given.channel_max}
    config = GanConfig(
        kimg=given.kimg, batch=given.batch, precision=precision, seed=seed, r1_gamma=0.5, **widths
    )
    architecture = Architecture(
        resolution=manifest.resolution,
        img_channels=manifest.channels,
        label_dim=len(manifest.classes),
        mapping_layers=config.mapping_layers,
        **widths,
    )
    data = InMemoryDataset(real.images, real.soft_labels, seed, device)
    began = time.perf_counter()
    state = train(new_state(architecture, config, device), data, config)
    seconds = time.perf_counter() - began
    settings = MetricsConfig(images=given.images, real_images=given.images)
    evaluator = Evaluator(settings, Store(url), Store(cache), data, Workers.from_process_group())
    quality = evaluator.evaluate(state.generator_ema).quality
    print(
        f"seed {seed}, {precision}: KID {quality['kid']:.4f} ± {quality['kid_error']:.4f}, "
        f"recall {quality['recall']:.3f}, {1000 * given.kimg / seconds:.0f} images/s",
        flush=True,
    )
    return {"seed": seed, "computed_in": precision, "seconds": seconds} | quality.to_json()


if __name__ == "__main__":
    main()
