"""Percentiles of 8-bit greys from their histogram, faster than by sorting pixels."""

from __future__ import annotations

import math

import cv2
import numpy as np


def cumulative_histogram(grey: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    """Count the pixels as dark as each grey or darker: int64 [256].

    Args:
        grey: uint8 [H, W].
        inside: uint8 [H, W], nonzero for the pixels to count; None for all.
    """
    counts = cv2.calcHist([grey], [0], inside, [256], [0, 256])
    return np.cumsum(counts, dtype=np.int64)


def percentile(counts: np.ndarray, fraction: float) -> float:
    """Return the grey below which `fraction` of the pixels lie, equal to numpy.quantile.

    Args:
        counts: a :func:`cumulative_histogram` of one pixel or more.
        fraction: 0 to 1.
    """
    position = fraction * (int(counts[-1]) - 1)
    below = math.floor(position)
    low, high = counts.searchsorted([below, below + 1], side="right").tolist()
    return low + (high - low) * (position - below)
