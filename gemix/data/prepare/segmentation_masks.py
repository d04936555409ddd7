"""Segmentation masks among images, told by their pixels."""

from __future__ import annotations

import numpy as np

# Of 300 public CT slices the most that two grey levels explain is 0.966 of the variance. Of masks
# that were saved as JPEG or resized they explain at least 0.986, and 0.94 of their pixels or more
# are within 1 of these levels.
_EXPLAINED = 0.98
_AT_LEVELS = 0.9


def is_segmentation_mask(grey: np.ndarray) -> bool:
    """Return whether an image holds two grey levels only, but for JPEG's ripples or a resize.

    Two conditions tell such a mask: nearly all pixels are within 1 of the two most frequent
    levels, and nearly all variance lies between the two sides of the best threshold (N. Otsu, "A
    Threshold Selection Method from Gray-Level Histograms", 1979).

    Args:
        grey: uint8 [H, W]. An image of one grey is no mask, nor is one with a single pixel of
            another: it is blank.
    """
    counts = np.bincount(grey.ravel(), minlength=256)
    levels = np.count_nonzero(counts)
    if levels <= 2:
        return levels == 2 and counts[counts > 0].min() > 1
    share = counts / counts.sum()
    return _share_at_two_levels(share) >= _AT_LEVELS and _explained(share) >= _EXPLAINED


def _share_at_two_levels(share: np.ndarray) -> float:
    """Return the share of pixels within 1 of the two most frequent levels."""
    near = np.convolve(share, np.ones(3), mode="same")
    first = int(near.argmax())
    others = near.copy()
    others[max(0, first - 2) : first + 3] = 0
    return float(near[first] + others.max())


def _explained(share: np.ndarray) -> float:
    """Return the share of the variance that the best threshold explains."""
    level = np.arange(256)
    below, moment = share.cumsum(), (share * level).cumsum()
    mean = moment[-1]
    variance = share @ (level - mean) ** 2
    inner = (below > 0) & (below < 1)
    below, moment = below[inner], moment[inner]
    between = (mean * below - moment) ** 2 / (below * (1 - below))
    return float(between.max() / variance)
