"""Dirichlet labels, biased to the dominant class."""

from __future__ import annotations

import numpy as np

from gemix.labels.base import dominant_classes
from gemix.labels.config import LabelConfig


def dirichlet_labels(
    rng: np.random.Generator, count: int, classes: int, config: LabelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Draw theta ~ Dirichlet(alpha), GeMix's class-biased prior.

    alpha_c is `dirichlet_dominant` for the dominant class and `dirichlet_other` elsewhere.
    """
    dominant = dominant_classes(rng, count, classes, config)
    return draw_dirichlet(rng, dominant, classes, config), dominant


def draw_dirichlet(
    rng: np.random.Generator, dominant: np.ndarray, classes: int, config: LabelConfig
) -> np.ndarray:
    """Draw one Dirichlet vector for each dominant class, as normalized gamma variates."""
    alpha = np.full((len(dominant), classes), config.dirichlet_other)
    alpha[np.arange(len(dominant)), dominant] = config.dirichlet_dominant
    gamma = rng.standard_gamma(alpha)
    return gamma / gamma.sum(axis=1, keepdims=True)
