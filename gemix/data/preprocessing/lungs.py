"""Measure the fraction of lung in a slice, to leave out slices above and below the lungs."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

_SIDE = 256  # pixels a side, about, of the reduced image that is searched
_LUNG_HU = -500.0  # between lung and fat
_MIN_COMPONENT = 0.005  # of the body: smaller ones are bowel gas or the trachea
_BLACK = 8  # the brightest median grey of air that a window has clipped
_DARK, _DARK_IF_AIR_IS_BLACK = 0.5, 0.25  # of the way from outer air to tissue; see _find_air
_GAPS = (0, 4, 8, 16)  # half the width of gaps between ribs to bridge, in reduced pixels


def lung_fraction(pixels: np.ndarray, mask: np.ndarray, is_hounsfield: bool) -> float:
    """Return the area of the lungs over the area of the body, a rough estimate.

    Lungs are components of air within the body that do not reach its outside and are not tiny.
    Windows that make fat black connect the lungs with the outside between the ribs; there a
    component counts too if it is closed once such gaps are bridged. Such fat deep in the abdomen
    passes for lung.

    Typical values, on the scans that the method was fitted to: 0.2 to 0.5 through the middle of the
    lungs, up to 0.02 at neck and shoulders. Bone windows that show ribs alone often read too low.

    Args:
        pixels: [H, W], float32 Hounsfield units or uint8 grey.
        mask: bool [H, W], the body with its lungs, from
            :func:`gemix.data.preprocessing.body.body_mask`.
        is_hounsfield: whether the pixels are Hounsfield units.

    Returns:
        0 to 1.
    """
    step = max(1, min(pixels.shape) // _SIDE)
    grey = np.asarray(Image.fromarray(pixels).reduce(step))
    body = np.asarray(Image.fromarray(mask.view(np.uint8) * 255).reduce(step)) == 255
    area = np.count_nonzero(body)
    if area == 0:
        return 0.0
    outside = 0.0 if body.all() else float(np.median(grey[~body]))
    is_clipped = not is_hounsfield and outside <= _BLACK
    air = grey <= _LUNG_HU if is_hounsfield else _find_air(grey, body, outside)
    lungs = _select_enclosed(air & body, body, _GAPS if is_clipped else _GAPS[:1])
    _, _, stats, _ = cv2.connectedComponentsWithStats(lungs.view(np.uint8), connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return float(areas[areas > _MIN_COMPONENT * area].sum() / area)


def _select_enclosed(air: np.ndarray, body: np.ndarray, gaps: tuple[int, ...]) -> np.ndarray:
    """Return the air that does not reach the outside once gaps in the chest wall are bridged."""
    depth = _distance(air | ~body)
    found = np.zeros_like(air)
    for gap in gaps:
        count, cores = cv2.connectedComponents((depth > gap).view(np.uint8), connectivity=4)
        enclosed = np.ones(count, dtype=bool)
        enclosed[0] = enclosed[np.unique(cores[~body])] = False
        if enclosed.any():
            found |= air & (_distance(~enclosed[cores]) <= gap)
    return found


def _distance(mask: np.ndarray) -> np.ndarray:
    """Return the distance of each True pixel to the nearest False one: float32 [h, w]."""
    return cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _find_air(grey: np.ndarray, body: np.ndarray, outside: float) -> np.ndarray:
    """Return where a grey image of an unknown window is as dark as lung: bool [H, W].

    That is the darker of two classes of the body's greys, unless it is too bright: in a slice
    without lungs the darker class is fat. Where air is black, lungs are nearly black; else
    diseased ones reach half-way to the tissue.
    """
    limit = _otsu(grey[body])
    dark, bright = body & (grey <= limit), body & (grey > limit)
    if not bright.any():
        return np.zeros_like(body)
    fraction = _DARK_IF_AIR_IS_BLACK if outside <= _BLACK else _DARK
    if np.median(grey[dark]) > outside + fraction * (np.median(grey[bright]) - outside):
        return np.zeros_like(body)
    return dark


def _otsu(grey: np.ndarray) -> int:
    """Return the last grey of the dark class (Otsu, IEEE Trans. SMC 9, 1979)."""
    counts = np.bincount(grey, minlength=256).astype(float)
    weight, total = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    above = weight[-1] - weight
    with np.errstate(divide="ignore", invalid="ignore"):
        between = weight * above * (total / weight - (total[-1] - total) / above) ** 2
    return int(np.nan_to_num(between).argmax())
