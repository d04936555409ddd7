"""Stage 6: train on real scans until the time is over; metrics, samples and a generator remain."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gemix.core.png import encode_png, tile
from gemix.data.shards.reading import read_images
from gemix.evaluation.image_quality.features.registry import open_extractor
from gemix.evaluation.image_quality.kid import kid, real_kernel_means
from gemix.gan.config import GanConfig, SamplingConfig
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.models.base import ImageGenerator
from gemix.gan.sampling import sample_images
from gemix.gan.training.divergence import DivergedError
from gemix.gan.training.loop import train
from gemix.gan.training.registry import new_state
from gemix.gan.training.state import TrainingState
from tests.gpu.common import SMALL, Stage

# networks of 7 million weights each: in float16 both fit into 32 MB, one file each under 16 MiB
WIDTHS = {
    "z_dim": 256,
    "w_dim": 256,
    "mapping_layers": 2,
    "channel_base": 8192,
    "channel_max": 256,
}
SEED = 0
EXTRACTOR = "timm-random:resnet18d"
RESERVED = 25  # seconds for the metrics and files at the end


class TimeIsOver(Exception):
    """The training is stopped to leave time for what follows."""


def main() -> None:
    """Train, and write ``generator.safetensors``, ``discriminator.safetensors``, a grid, a log."""
    stage = Stage("training")
    images, labels, classes = scans(stage)
    config = GanConfig(
        batch=16 if stage.tiny else 32,
        kimg=0.064 if stage.tiny else 1e6,
        seed=SEED,
        precision="auto",
        ema_kimg=20,
        **(SMALL if stage.tiny else WIDTHS),
    )
    data = InMemoryDataset(images, labels, SEED, stage.device)
    shape = config.architecture(
        resolution=images.shape[-1], img_channels=images.shape[1], label_dim=len(classes)
    )
    state = new_state(shape, config, stage.device)
    before = load_start(state, stage.task["start"])
    began, end = time.monotonic(), stage.end - RESERVED
    log_every = 2 if stage.tiny else 64

    def on_step(state: TrainingState, values: dict[str, Tensor]) -> None:
        if state.step % log_every == 0:
            kimg = config.kimg_at(state.step)
            stage.add(
                kimg=before + kimg,
                images_per_s=1000 * kimg / (time.monotonic() - began),
                augment_p=float(state.augment_p),
                **{name: float(value) for name, value in values.items() if name[:4] == "loss"},
            )
        if time.monotonic() > end:
            raise TimeIsOver

    with contextlib.suppress(TimeIsOver, DivergedError):
        train(state, data, config, on_step=on_step)
    kimg = before + config.kimg_at(state.step)
    save(stage, state, kimg, classes)
    stage.add(kimg=kimg, **measure(stage, state.generator_ema, images, labels))


def scans(stage: Stage) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return the train split of the prepared scans, or noise where there are none."""
    if stage.task["scans"]:
        found = read_images([stage.task["scans"]], "train")
        return found.images, found.soft_labels, found.classes
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (256, 1, 32, 32), dtype=np.uint8)
    return images, np.eye(3, dtype=np.float32)[np.arange(256) % 3], ("a", "b", "c")


def load_start(state: TrainingState, folder: str) -> float:
    """Load the networks of an earlier run; return their kimg."""
    if not folder:
        return 0.0
    saved = Path(folder)
    for name, networks in {
        "generator": (state.generator, state.generator_ema),
        "discriminator": (state.discriminator,),
    }.items():
        weights = {k: v.float() for k, v in load_file(saved / f"{name}.safetensors").items()}
        for network in networks:
            network.load_state_dict(weights)
    return json.loads((saved / "generator.json").read_text())["kimg"]


def save(stage: Stage, state: TrainingState, kimg: float, classes: tuple[str, ...]) -> None:
    """Write both networks in float16, what they are, and a grid of samples: one row a class."""
    out = Path(stage.task["out"])
    for name, network in (
        ("generator", state.generator_ema),
        ("discriminator", state.discriminator),
    ):
        half = {k: v.half().contiguous() for k, v in network.state_dict().items()}
        save_file(half, out / f"{name}.safetensors")
    about = {"kimg": kimg, "classes": list(classes), "seed": SEED, "torch": torch.__version__}
    about |= {"architecture": vars(state.generator.architecture), "widths": WIDTHS}
    (out / "generator.json").write_text(json.dumps(about, indent=1))
    rows = np.repeat(np.eye(len(classes), dtype=np.float32), 8, axis=0)
    seeds = list(range(8)) * len(classes)
    grid = sample_images(state.generator_ema, seeds, rows, SamplingConfig(), stage.device)
    (out / "samples.png").write_bytes(encode_png(tile(grid, 8)))


def measure(
    stage: Stage, generator: ImageGenerator, images: np.ndarray, labels: np.ndarray
) -> dict[str, object]:
    """Return KID of the trained generator against the images that it was trained on."""
    count = 64 if stage.tiny else min(5000, 2 * len(images))
    extractor = open_extractor(EXTRACTOR, images.shape[-1], stage.device)
    rows = np.random.default_rng(SEED).permutation(len(images))[:count]
    wanted = labels[np.resize(rows, count)]
    fakes = sample_images(generator, list(range(count)), wanted, SamplingConfig(), stage.device)
    real = extractor(images[rows])
    found = kid(real, extractor(fakes), real_kernel_means(real))
    return {"kid": found.value, "kid_error": found.error, "images": count, "by": EXTRACTOR}


if __name__ == "__main__":
    main()
