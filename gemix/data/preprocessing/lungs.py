"""How much of a body is lung in one slice, for leaving out the slices above and below the lungs."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

_SIDE = 256  # pixels a side, about, of the reduced image in which the lungs are looked for
_LUNG_HU = -500.0  # between lung and fat
_LEAST = 0.005  # of the body: a smaller component is bowel gas or the windpipe
_BLACK = 8  # the brightest median grey of air that a window has cut off
_DARK, _DARK_WHERE_AIR_IS_BLACK = 0.5, 0.25  # of the way from outer air to tissue; see _air
_GAPS = (0, 4, 8, 16)  # half the gaps between ribs to bridge, in reduced pixels


def lung_fraction(pixels: np.ndarray, mask: np.ndarray, is_hounsfield: bool) -> float:
    """The area of the lungs over the area of the body.

    Lungs are components of air within the body that do not reach its outside and are not tiny.
    Under windows that make fat black the air of the lungs runs out between the ribs; there a
    component counts too if it is closed once such gaps are bridged. This is a rough guess, and
    such fat deep in a belly passes for lung.

    Typical values, on the scans that the method was fitted to: 0.2 to 0.5 through the middle of the
    lungs, up to 0.02 at neck and shoulders. Bone windows that show ribs alone often read too low.

    Args:
        pixels: [H, W], float32 Hounsfield units or uint8 grey.
        mask: bool [H, W], the body with its lungs, as
            :func:`gemix.data.preprocessing.body.body_mask` gives it.
        is_hounsfield: which of the two the pixels are.

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
    is_cut_off = not is_hounsfield and outside <= _BLACK
    inner = grey <= _LUNG_HU if is_hounsfield else _air(grey, body, outside)
    lungs = _closed(inner & body, body, _GAPS if is_cut_off else _GAPS[:1])
    _, _, stats, _ = cv2.connectedComponentsWithStats(lungs.view(np.uint8), connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return float(areas[areas > _LEAST * area].sum() / area)


def _closed(air: np.ndarray, body: np.ndarray, gaps: tuple[int, ...]) -> np.ndarray:
    """The air that does not reach the body's outside where gaps of its wall are bridged."""
    depth = _distance(air | ~body)
    found = np.zeros_like(air)
    for gap in gaps:
        count, cores = cv2.connectedComponents((depth > gap).view(np.uint8), connectivity=4)
        closed = np.ones(count, dtype=bool)
        closed[0] = closed[np.unique(cores[~body])] = False
        if closed.any():
            found |= air & (_distance(~closed[cores]) <= gap)
    return found


def _distance(away: np.ndarray) -> np.ndarray:
    """From each True pixel to the nearest False one, in pixels: float32 [h, w]."""
    return cv2.distanceTransform(away.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _air(grey: np.ndarray, body: np.ndarray, outside: float) -> np.ndarray:
    """Where a grey image is as dark as lungs can be; bool [H, W].

    Its window is not known, so this is the darker of the two greys that the body falls into. A
    slice without lungs has fat for its darker grey, which is brighter than lung, and no air. With
    black air lungs are nearly black; else, where diseased, they reach half-way to the tissue.
    """
    limit = _otsu(grey[body])
    dark, bright = body & (grey <= limit), body & (grey > limit)
    if not bright.any():
        return np.zeros_like(body)
    share = _DARK_WHERE_AIR_IS_BLACK if outside <= _BLACK else _DARK
    if np.median(grey[dark]) > outside + share * (np.median(grey[bright]) - outside):
        return np.zeros_like(body)
    return dark


def _otsu(grey: np.ndarray) -> int:
    """The last grey of the dark class (Otsu, IEEE Trans. SMC 9, 1979)."""
    counts = np.bincount(grey, minlength=256).astype(float)
    weight, total = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    above = weight[-1] - weight
    with np.errstate(divide="ignore", invalid="ignore"):
        between = weight * above * (total / weight - (total[-1] - total) / above) ** 2
    return int(np.nan_to_num(between).argmax())
