"""Recognise images of one grey: nothing can be learned from them."""

from __future__ import annotations

import numpy as np

from gemix.data.preprocessing.histogram import cumulative_histogram, percentile

_TAIL = 0.005  # of the pixels at each end do not count: a hot pixel, a speck
_MAX_SPREAD = 2.0  # greys between the rest, less than the noise of any scan


def grey_range(grey: np.ndarray) -> tuple[float, float]:
    """Return the greys between which 99% of the pixels lie: of uint8 [H, W]."""
    counts = cumulative_histogram(grey)
    return percentile(counts, _TAIL), percentile(counts, 1 - _TAIL)


def is_blank(grey: np.ndarray) -> bool:
    """Return whether nearly all pixels of uint8 [H, W] have one grey, but for rounding."""
    low, high = grey_range(grey)
    return high - low <= _MAX_SPREAD
