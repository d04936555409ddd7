"""Percentiles of grey levels, counted level by level: sooner than by sorting pixels."""

from __future__ import annotations

import math

import cv2
import numpy as np


def cumulative_histogram(grey: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    """How many pixels are as dark as each grey or darker: int64 [256].

    Args:
        grey: uint8 [H, W].
        inside: uint8 [H, W], not 0 for pixels that count; None for all.
    """
    counts = cv2.calcHist([grey], [0], inside, [256], [0, 256])
    return np.cumsum(counts, dtype=np.int64)


def percentile(pixels: np.ndarray, share: float) -> float:
    """The grey that `share` of the pixels lie below, as numpy.percentile has it.

    Args:
        pixels: at least one, :func:`cumulative_histogram`.
        share: 0 to 1.
    """
    place = share * (int(pixels[-1]) - 1)
    below = math.floor(place)
    low, high = pixels.searchsorted([below, below + 1], side="right").tolist()
    return low + (high - low) * (place - below)
