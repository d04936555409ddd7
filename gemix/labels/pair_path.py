"""Evenly spaced labels on the straight lines between two classes."""

from __future__ import annotations

import numpy as np

from gemix.labels.base import dominant_classes
from gemix.labels.config import LabelConfig


def pair_path_labels(
    rng: np.random.Generator, count: int, classes: int, config: LabelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Mix two classes: theta = (1 - t) e_c + t e_d, with t on a grid of the line from c to d.

    t is k / (S - 1) or 1 minus that, whichever is at most 1/2, so that c stays the dominant class;
    S is `path_steps`, and k runs through 0 .. S - 1 again and again. Hence with uniform class
    weights every point of every line is equally frequent. d is any other class, all equally likely.
    """
    rows = np.arange(count)
    first = dominant_classes(rng, count, classes, config)
    second = (first + 1 + rng.integers(classes - 1, size=count)) % classes
    steps = config.path_steps
    share = (rng.integers(steps) + rows) % steps / (steps - 1)
    share = np.minimum(share, 1 - share)
    theta = np.zeros((count, classes))
    theta[rows, first] = 1 - share
    theta[rows, second] = share
    return theta, first
