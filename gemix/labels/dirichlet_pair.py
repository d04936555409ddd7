"""Blends of two Dirichlet labels."""

from __future__ import annotations

import numpy as np

from gemix.labels.base import dominant_classes
from gemix.labels.config import LabelConfig
from gemix.labels.dirichlet import draw_dirichlet


def dirichlet_pair_labels(
    rng: np.random.Generator, count: int, classes: int, config: LabelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Draw GeMix's blend of two labels: theta = lambda theta_1 + (1 - lambda) theta_2.

    theta_1 and theta_2 are Dirichlet vectors biased to two different classes, and
    lambda ~ Beta(a, a) with a = `pair_beta`. The dominant class is that of the larger weight.
    """
    first = dominant_classes(rng, count, classes, config)
    second = (first + 1 + rng.integers(classes - 1, size=count)) % classes
    blend = rng.beta(config.pair_beta, config.pair_beta, size=(count, 1))
    theta = blend * draw_dirichlet(rng, first, classes, config)
    theta += (1 - blend) * draw_dirichlet(rng, second, classes, config)
    return theta, np.where(blend[:, 0] >= 0.5, first, second)
