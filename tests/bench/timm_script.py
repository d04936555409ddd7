"""Classifier training beside timm's own training script: same model, batch, precision and cores.

    python -m tests.bench.timm_script --peer CHECKOUT [--model resnet18] [--resolution 64]

`CHECKOUT` is a clone of huggingface/pytorch-image-models, whose ``train.py`` reads the same phantom
images as PNG files, the way it is used; ours reads its shards into memory. Both train without and
with augmentation (timm's standard one; ours of CT) by AdamW, and take turns. Images per second are
of the training steps of an epoch, without validation and checkpoints, of all epochs but the first;
timm's with the number of loading processes that is fastest for it.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gemix.classifier.config import ClassifierConfig
from gemix.classifier.trainer import Trainer
from gemix.config import load
from gemix.core.distributed import Workers
from gemix.data.image_set import ImageSet
from gemix.data.prepare import prepare_serial
from gemix.data.shards.reading import read_images
from gemix.data.sources import open_source
from gemix.io.storage import Store

AUGMENTATIONS = {"none": ("none", ["--no-aug"]), "standard": ("ct", [])}
MEAN_RATE = re.compile(r"Train: (\d+) .*?\([\d.]+s, +([\d.]+)/s\)")


def main() -> None:
    """Print a row for each augmentation."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.timm_script")
    parser.add_argument("--peer", type=Path, required=True, help="clone of pytorch-image-models")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--patients", type=int, default=100, help="of each class")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--loaders", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        settings = load(
            "demo",
            [
                f"data.resolution={options.resolution}",
                f"data.phantom.patients_per_class={options.patients}",
            ],
        ).data
        prepare_serial(open_source(settings), settings, Store(f"{folder}/shards"))
        images = read_images([f"{folder}/shards"], "train")
        for split in ("train", "val"):
            write_pngs(read_images([f"{folder}/shards"], split), Path(folder, "png", split))
        print(
            f"{options.model}, {options.resolution} x {options.resolution}, batch {options.batch}, "
            f"{len(images)} images an epoch, {options.threads} threads"
        )
        for name, (augment, arguments) in AUGMENTATIONS.items():
            theirs: dict[int, list[float]] = {loaders: [] for loaders in options.loaders}
            ours = []
            for _ in range(options.turns):
                for loaders, found in theirs.items():
                    found.append(peer_rate(options, folder, loaders, arguments))
                ours.append(our_rate(options, images, augment))
            rates = {loaders: round(statistics.median(found)) for loaders, found in theirs.items()}
            loaders, best = max(rates.items(), key=lambda item: item[1])
            rate = statistics.median(ours)
            print(
                f"augmentation {name}: gemix {rate:.0f} images/s, timm {best:.0f} "
                f"({loaders} loading processes; all: {rates}), ratio {rate / best:.2f}",
                flush=True,
            )


def write_pngs(images: ImageSet, folder: Path) -> None:
    """Write images as files in a folder a class."""
    for row, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
        path = folder / images.classes[label] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(path)


def our_rate(options: argparse.Namespace, images: ImageSet, augment: str) -> float:
    """Return images/s of the epochs after the first."""
    config = ClassifierConfig(
        model=options.model, batch=options.batch, epochs=options.epochs, augment=augment
    )
    trainer = Trainer(images, len(images), config, torch.device("cpu"), Workers(0, 1))
    seconds = []
    for epoch in range(options.epochs):
        began = time.perf_counter()
        trainer.run_epoch(epoch)
        seconds.append(time.perf_counter() - began)
    return trainer.steps * options.batch / float(np.mean(seconds[1:]))


def peer_rate(
    options: argparse.Namespace, folder: str, loaders: int, arguments: list[str]
) -> float:
    """Return images/s of the epochs after the first of timm's script."""
    size = ["1", str(options.resolution), str(options.resolution)]
    command = [
        *(sys.executable, str(options.peer / "train.py"), "--device", "cpu"),
        *("--data-dir", f"{folder}/png", "--train-split", "train", "--val-split", "val"),
        *("--model", options.model, "--num-classes", "3", "--in-chans", "1"),
        *("--input-size", *size, "--input-img-mode", "L", "--mean", "0.5", "--std", "0.25"),
        *("--opt", "adamw", "--lr", "3e-4", "--batch-size", str(options.batch)),
        *("--epochs", str(options.epochs), "--workers", str(loaders), "--log-interval", "100000"),
        *("--no-prefetcher", "--channels-last", "--output", f"{folder}/timm"),
        *arguments,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    rates = {
        int(epoch): float(rate) for epoch, rate in MEAN_RATE.findall(done.stderr + done.stdout)
    }
    if done.returncode or len(rates) < options.epochs:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return float(np.mean([rate for epoch, rate in rates.items() if epoch > 0]))


if __name__ == "__main__":
    main()
