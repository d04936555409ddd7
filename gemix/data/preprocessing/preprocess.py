"""Turn a scan into one square 8-bit image of the body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from gemix.data.config import DataConfig
from gemix.data.preprocessing.blank import grey_range, is_blank
from gemix.data.preprocessing.body import body_mask, bounding_box
from gemix.data.preprocessing.histogram import cumulative_histogram, percentile
from gemix.data.preprocessing.lungs import lung_fraction
from gemix.data.preprocessing.resize import resize_lanczos
from gemix.data.preprocessing.windows import apply_window
from gemix.data.scan import Box, InvalidImageError, Scan, ScanFiltered

_BODY_HU = -400.0  # above lung and air, below fat


def preprocess(scan: Scan, config: DataConfig) -> np.ndarray:
    """Apply windows, crop, pad to a square and resize.

    The crop is the scan's box if it has one, else the bounding box of the body
    (:mod:`gemix.data.preprocessing.body`). Pixels outside the body (the table) get the background's
    grey.

    Returns:
        uint8 [C, R, R], a channel for each of ``config.windows``, R being ``config.resolution``.

    Raises:
        InvalidImageError: for a blank image file, or a box that is not inside the image.
        ScanFiltered: "blank" for a blank slice of a volume, such as padding or a slice that the
            windows leave of one grey; "min_lung_fraction" if less of the body (or of the body in
            the box) is lung than ``config.min_lung_fraction``.
    """
    pixels = scan.pixels
    mask = None
    if scan.box is not None:
        box = _check_box(scan.box, pixels.shape)
    else:
        mask = _detect_body(pixels, scan.is_hounsfield)
        box = bounding_box(mask)
    channels = [pixels]
    if scan.is_hounsfield:
        channels = [apply_window(pixels, *window) for window in config.levels_and_widths]
    image = np.stack([_crop_and_resize(grey, box, mask, config.resolution) for grey in channels])
    _check_blank(channels, image, scan.is_hounsfield)
    if config.min_lung_fraction > 0:
        _check_lungs(scan, config.min_lung_fraction, mask)
    return image


def preprocess_settings(config: DataConfig) -> dict[str, Any]:
    """Return the settings that decide which scans become images and their pixels."""
    return {
        "slice_step": config.slice_step,
        "min_lung_fraction": config.min_lung_fraction,
        "resolution": config.resolution,
        "windows": [list(window) for window in config.levels_and_widths],
        "crop": "box or body",
        "resize": "lanczos",
    }


def config_of_settings(settings: Mapping[str, Any]) -> DataConfig:
    """Return a configuration that makes the same images as the one of these settings.

    Args:
        settings: what :func:`preprocess_settings` returned, other keys are ignored.

    Raises:
        ConfigError: for a value out of its range.
        KeyError, TypeError, ValueError: for settings that this version does not know.
    """
    config = DataConfig(
        slice_step=settings["slice_step"],
        min_lung_fraction=settings["min_lung_fraction"],
        resolution=settings["resolution"],
        windows=tuple(f"{level}/{width}" for level, width in settings["windows"]),
    )
    for name, value in preprocess_settings(config).items():
        if settings[name] != value:
            raise ValueError(f"{name} {settings[name]!r}; this gemix knows {value!r}")
    return config


def _detect_body(pixels: np.ndarray, is_hounsfield: bool) -> np.ndarray:
    return body_mask(pixels, _BODY_HU if is_hounsfield else None)


def _check_blank(channels: Sequence[np.ndarray], image: np.ndarray, is_hounsfield: bool) -> None:
    """Raise if the windows, or the last step, leave all channels blank.

    Scanners and resampling pad volumes with blank slices, which are left out; a blank image file
    is a mistake, which is set aside.
    """
    # the frame too, since padding to a square adds a second grey
    if not (all(map(is_blank, channels)) or all(map(is_blank, image))):
        return
    if is_hounsfield:
        raise ScanFiltered("blank")
    low, high = grey_range(channels[0])
    raise InvalidImageError(
        f"blank: 99% of its pixels have greys from {low:g} to {high:g}; replace or remove it"
    )


def _check_lungs(scan: Scan, minimum: float, mask: np.ndarray | None) -> None:
    """Raise ScanFiltered if too little is lung of the mask, or else of the body in the box."""
    pixels = scan.pixels
    if mask is None:
        left, top, right, bottom = scan.box
        pixels = pixels[top:bottom, left:right]
        mask = _detect_body(pixels, scan.is_hounsfield)
    if lung_fraction(pixels, mask, scan.is_hounsfield) < minimum:
        raise ScanFiltered("min_lung_fraction")


def _crop_and_resize(
    grey: np.ndarray, box: Box, mask: np.ndarray | None, resolution: int
) -> np.ndarray:
    """Return the box as a square of uint8 [R, R], with the background's grey outside the mask."""
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
        return resize_lanczos(square, resolution)
    body = mask[inside].view(np.uint8)
    cv2.copyTo(grey[inside], body, within)
    outside = mask.size - cv2.countNonZero(body)
    grey_outside = cv2.countNonZero(grey) - cv2.countNonZero(within)
    if outside and 2 * grey_outside >= outside:  # the median is not black, as air often is
        square[:] = int(percentile(cumulative_histogram(grey, (~mask).view(np.uint8)), 0.5))
        cv2.copyTo(grey[inside], body, within)
    return resize_lanczos(square, resolution)


def _check_box(box: Box, shape: tuple[int, ...]) -> Box:
    left, top, right, bottom = box
    height, width = shape
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise InvalidImageError(
            f"box {box} (left, top, right, bottom) does not fit the image of {width} x {height} "
            "pixels; correct the line in the list file"
        )
    return box
