"""Resample slices whose pixels are not square, so that a body keeps its proportions."""

from __future__ import annotations

import cv2
import numpy as np

from gemix.data.preprocessing.decode import MAX_SIDE
from gemix.data.scan import InvalidImageError

_TOLERANCE = 0.01  # headers round spacings; less than this moves no pixel noticeably


def to_square_pixels(pixels: np.ndarray, row_spacing: float, column_spacing: float) -> np.ndarray:
    """Enlarge the axis of the wider spacing linearly until pixels are square.

    Args:
        pixels: float32 [H, W].
        row_spacing: mm from a row to the next.
        column_spacing: mm from a column to the next.

    Returns:
        float32 [H', W']: the input itself where the spacings differ by 1% or less.

    Raises:
        InvalidImageError: for spacings that are not positive and finite, or so unlike that a side
            would exceed `MAX_SIDE`.
    """
    if not (0 < row_spacing < np.inf and 0 < column_spacing < np.inf):
        raise InvalidImageError("its pixel spacing is not two positive numbers; correct the header")
    ratio = row_spacing / column_spacing
    if abs(ratio - 1) <= _TOLERANCE:
        return pixels
    height, width = pixels.shape
    longest = max(height * ratio, width / ratio)
    if longest > MAX_SIDE:
        raise InvalidImageError(
            f"one side of its pixels is {max(ratio, 1 / ratio):.3g} times the other, more than "
            f"slices of up to {MAX_SIDE} pixels allow; correct the pixel spacing in the header"
        )
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    return cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
