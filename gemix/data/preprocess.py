"""One scan to one square 8-bit image of the body."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from gemix.data.body import body_mask, bounding_box
from gemix.data.config import DataConfig
from gemix.data.scan import BadImage, Box, Scan
from gemix.data.windows import apply_window

_BODY_HU = -400.0  # above lung and air, below fat


def preprocess(scan: Scan, config: DataConfig) -> np.ndarray:
    """Windows, crop, pad to a square, resize.

    The crop is the scan's box where it has one, else the body (:mod:`gemix.data.body`).
    What lies outside the body (the table) is painted in the background's grey.

    Returns:
        uint8 [C, R, R], a channel for each of ``config.windows``, R being ``config.resolution``.

    Raises:
        BadImage: for a blank scan or a box that is not inside it.
    """
    pixels = scan.pixels
    if pixels.min() == pixels.max():
        raise BadImage(f"blank: every pixel has the value {pixels.min():g}")
    mask = None
    if scan.box is not None:
        box = _checked(scan.box, pixels.shape)
    else:
        mask = body_mask(pixels, _BODY_HU if scan.is_hounsfield else None)
        box = bounding_box(mask)
    channels = [pixels]
    if scan.is_hounsfield:
        channels = [apply_window(pixels, *window) for window in config.levels_and_widths]
    return np.stack([_cut(grey, box, mask, config.resolution) for grey in channels])


def settings(config: DataConfig) -> dict[str, Any]:
    """What decides the pixels, for the manifest."""
    return {
        "resolution": config.resolution,
        "windows": [list(window) for window in config.levels_and_widths],
        "crop": "box or body",
        "resize": "lanczos",
    }


def _cut(grey: np.ndarray, box: Box, mask: np.ndarray | None, resolution: int) -> np.ndarray:
    """The box as a square of uint8 [R, R]; what the mask leaves out in the background's grey."""
    if mask is None:
        background = int(grey.min())
    else:
        background = int(np.median(grey[~mask])) if not mask.all() else 0
        grey = np.where(mask, grey, np.uint8(background))
    left, top, right, bottom = box
    square = _pad_to_square(grey[top:bottom, left:right], background)
    # Pillow widens the filter when it shrinks, which is what keeps thin structures from aliasing
    resized = Image.fromarray(square).resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.asarray(resized)


def _checked(box: Box, shape: tuple[int, ...]) -> Box:
    left, top, right, bottom = box
    height, width = shape
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise BadImage(
            f"box {box} (left, top, right, bottom) does not fit the image of {width} x {height} "
            "pixels; mend the line in the list file"
        )
    return box


def _pad_to_square(image: np.ndarray, value: int) -> np.ndarray:
    height, width = image.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    padding = ((top, side - height - top), (left, side - width - left))
    return np.pad(image, padding, constant_values=value)
