"""Hard labels: soft images with the label of their dominant class."""

from __future__ import annotations

import numpy as np

from gemix.comparison.relabel.base import Labels


def hard(labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Return one-hot labels of the classes with the largest weight."""
    rows = labels.synthetic
    return labels.real, np.eye(rows.shape[1], dtype=np.float32)[rows.argmax(axis=1)]
