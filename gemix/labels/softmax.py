"""Softmax labels: biased Gaussian logits."""

from __future__ import annotations

import numpy as np

from gemix.labels.base import dominant_classes
from gemix.labels.config import LabelConfig


def softmax_labels(
    rng: np.random.Generator, count: int, classes: int, config: LabelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Draw theta = softmax(z / T) with z ~ N(0, sigma^2 I) and z_c += b for the dominant class c.

    T is `temperature`, b is `bias`, sigma is `noise_std`. With sigma = 0 all labels of a class are
    equal: theta_c = e^(b/T) / (e^(b/T) + K - 1).
    """
    dominant = dominant_classes(rng, count, classes, config)
    z = config.noise_std * rng.standard_normal((count, classes))
    z[np.arange(count), dominant] += config.bias
    scaled = (z - z.max(axis=1, keepdims=True)) / config.temperature  # exp stays finite at any T
    weights = np.exp(scaled)
    return weights / weights.sum(axis=1, keepdims=True), dominant
