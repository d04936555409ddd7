"""One-hot labels: ordinary class-conditional synthesis."""

from __future__ import annotations

import numpy as np

from gemix.labels.base import dominant_classes
from gemix.labels.config import LabelConfig


def onehot_labels(
    rng: np.random.Generator, count: int, classes: int, config: LabelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Put all weight on the dominant class."""
    dominant = dominant_classes(rng, count, classes, config)
    return np.eye(classes)[dominant], dominant
