"""Toy image sets: a bright spot whose place is the class."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gemix.classifier.config import ClassifierConfig
from gemix.data.image_set import ImageSet

CLASSES = ("normal", "left", "right")


@pytest.fixture(scope="session")
def image_set() -> Callable[..., ImageSet]:
    """Makes a set of `count` noisy images, groups named after `name`."""

    def make(
        name: str, count: int, *, seed: int = 0, size: int = 32, channels: int = 1
    ) -> ImageSet:
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % 3
        images = rng.normal(90, 12, size=(count, channels, size, size))
        for image, label in zip(images, labels, strict=True):
            row, column = size // 2, (None, size // 5, size - size // 5)[label]
            if column is not None:
                image[:, row - 4 : row + 4, column - 4 : column + 4] += 90
        return ImageSet(
            images=images.clip(0, 255).astype(np.uint8),
            labels=labels,
            soft_labels=np.eye(3, dtype=np.float32)[labels],
            groups=tuple(f"{name}-{index // 3}" for index in range(count)),
            sources=tuple(f"{name}/{index}.png" for index in range(count)),
            classes=CLASSES,
            digest=f"{seed:064x}",
        )

    return make


@pytest.fixture(scope="session")
def quick() -> ClassifierConfig:
    """A training of a second."""
    return ClassifierConfig(model="test_resnet", epochs=4, batch=12, lr=3e-3, epoch_images=72)
