"""One scan to one square 8-bit image of the body."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from gemix.data.config import DataConfig
from gemix.data.preprocessing.body import body_mask, bounding_box
from gemix.data.preprocessing.histogram import cumulative_histogram, percentile
from gemix.data.preprocessing.lungs import lung_fraction
from gemix.data.preprocessing.resize import resized
from gemix.data.preprocessing.windows import apply_window
from gemix.data.scan import Box, InvalidImageError, Scan, ScanFiltered

_BODY_HU = -400.0  # above lung and air, below fat


def preprocess(scan: Scan, config: DataConfig) -> np.ndarray:
    """Windows, crop, pad to a square, resize.

    The crop is the scan's box where it has one, else the body
    (:mod:`gemix.data.preprocessing.body`). What lies outside the body (the table) is painted in the
    background's grey.

    Returns:
        uint8 [C, R, R], a channel for each of ``config.windows``, R being ``config.resolution``.

    Raises:
        InvalidImageError: for a blank scan or a box that is not inside it.
        ScanFiltered: if less of the body (or of the box's body) is lung than
            ``config.min_lung_fraction``.
    """
    pixels = scan.pixels
    if pixels.min() == pixels.max():
        raise InvalidImageError(f"blank: every pixel has the value {pixels.min():g}")
    mask = None
    if scan.box is not None:
        box = _checked(scan.box, pixels.shape)
    else:
        mask = _body(pixels, scan.is_hounsfield)
        box = bounding_box(mask)
    if config.min_lung_fraction > 0:
        _check_lungs(scan, config.min_lung_fraction, mask)
    channels = [pixels]
    if scan.is_hounsfield:
        channels = [apply_window(pixels, *window) for window in config.levels_and_widths]
    return np.stack([_cut(grey, box, mask, config.resolution) for grey in channels])


def settings(config: DataConfig) -> dict[str, Any]:
    """What decides which scans become images, and which pixels they have, for the manifest."""
    return {
        "slice_step": config.slice_step,
        "min_lung_fraction": config.min_lung_fraction,
        "resolution": config.resolution,
        "windows": [list(window) for window in config.levels_and_widths],
        "crop": "box or body",
        "resize": "lanczos",
    }


def _body(pixels: np.ndarray, is_hounsfield: bool) -> np.ndarray:
    return body_mask(pixels, _BODY_HU if is_hounsfield else None)


def _check_lungs(scan: Scan, least: float, mask: np.ndarray | None) -> None:
    """Raises ScanFiltered if too little of the mask, or without one of the box's body, is lung."""
    pixels = scan.pixels
    if mask is None:
        left, top, right, bottom = scan.box
        pixels = pixels[top:bottom, left:right]
        mask = _body(pixels, scan.is_hounsfield)
    share = lung_fraction(pixels, mask, scan.is_hounsfield)
    if share < least:
        raise ScanFiltered("min_lung_fraction")


def _cut(grey: np.ndarray, box: Box, mask: np.ndarray | None, resolution: int) -> np.ndarray:
    """The box as a square of uint8 [R, R]; what the mask leaves out in the background's grey."""
    left, top, right, bottom = box
    inside = (slice(top, bottom), slice(left, right))
    height, width = bottom - top, right - left
    side = max(height, width)
    across, down = (side - width) // 2, (side - height) // 2
    square = np.zeros((side, side), dtype=np.uint8)
    within = square[down : down + height, across : across + width]
    if mask is None:
        square[:] = grey.min()
        within[:] = grey[inside]
        return resized(square, resolution)
    body = mask[inside].view(np.uint8)
    cv2.copyTo(grey[inside], body, within)
    outside = mask.size - cv2.countNonZero(body)
    grey_outside = cv2.countNonZero(grey) - cv2.countNonZero(within)
    if outside and 2 * grey_outside >= outside:  # the median is not black, as air often is
        square[:] = int(percentile(cumulative_histogram(grey, (~mask).view(np.uint8)), 0.5))
        cv2.copyTo(grey[inside], body, within)
    return resized(square, resolution)


def _checked(box: Box, shape: tuple[int, ...]) -> Box:
    left, top, right, bottom = box
    height, width = shape
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise InvalidImageError(
            f"box {box} (left, top, right, bottom) does not fit the image of {width} x {height} "
            "pixels; mend the line in the list file"
        )
    return box
