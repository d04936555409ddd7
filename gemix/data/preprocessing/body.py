"""Where the body is in a slice: thresholding, connected components, and no table.

Published slices come in every window. Under a bone window muscle is speckle, fat is black, and
nothing but bones stands out, so the largest component alone may be a rib or the table. Components
that have a table's shape are therefore dropped first, and the body is the convex hull of its
largest component or, where that does not span what is left, of everything that is left.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from gemix.data.preprocessing.histogram import cumulative_histogram, percentile
from gemix.data.scan import Box

_SIDE = 256  # pixels a side, about, of the reduced image in which the body is looked for
_DARK_SHARE = 0.1  # of the way from background to bright: where bone-windowed muscle begins
_LEAST_BODY = 0.1  # of the frame; a smaller find is no body, and the whole frame is kept
_LEAST_SOLID = 0.7  # of all that may be body; see _largest_if_it_spans
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))  # a pixel and its 4 neighbours

# Tables in the lower part of the frame: shares of its height that they reach below, and the least
# width and the greatest mean thickness, as shares of the frame.
_RIM, _BOARD = (0.6, 0.1, 0.02), (0.7, 0.55, 0.06)


def body_mask(pixels: np.ndarray, threshold: float | None = None) -> np.ndarray:
    """The body with its lungs, as a convex region.

    Args:
        pixels: [H, W], uint8 grey or float32 Hounsfield units.
        threshold: what is above belongs to body or table; None chooses it between a grey image's
            background and its bright parts.

    Returns:
        bool [H, W]; all True where nothing looks like a body.
    """
    step = max(1, min(pixels.shape) // _SIDE)
    reduced = _reduced(pixels, step)
    if threshold is None:
        outline = _outline(reduced, _dark_limit(reduced))
        if _is_field_of_view(outline, reduced.shape):  # black beyond a circle of grey air
            inside = _filled(outline, reduced.shape)
            outline = _outline(reduced, _dark_limit(reduced, inside))
    else:
        outline = _outline(reduced, threshold)
    if _area(outline) < _LEAST_BODY * reduced.size:
        return np.ones(pixels.shape, dtype=bool)
    return _filled(_enlarged(outline, step), pixels.shape).view(bool)


def bounding_box(mask: np.ndarray) -> Box:
    """The smallest box about the True pixels of a mask that has some."""
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    return left, top, left + width, top + height


def _reduced(pixels: np.ndarray, step: int) -> np.ndarray:
    """The means of step x step pixels; the last row and column are repeated to make blocks full."""
    height, width = pixels.shape
    down, right = -height % step, -width % step
    if down or right:
        pixels = cv2.copyMakeBorder(pixels, 0, down, 0, right, cv2.BORDER_REPLICATE)
    return cv2.resize(pixels, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)


def _outline(reduced: np.ndarray, threshold: float) -> np.ndarray:
    """The corners of the body's convex hull in the reduced image, left of right and top of bottom.

    Returns:
        int32 [n, 1, 2], columns and rows of pixels, as OpenCV has polygons; no corner where there
        is nothing.
    """
    bright = reduced > threshold
    # components are what costs; air around the body and the table has none
    left, top, right, bottom = bounding_box(bright)
    if right == left:
        return np.empty((0, 1, 2), dtype=np.int32)
    kept = _without_table(bright[top:bottom, left:right], top, bright.shape)
    kept = _largest_if_it_spans(_without_what_is_below(kept))
    return _convex_hull(kept) + np.array([left, top], dtype=np.int32)


def _is_field_of_view(outline: np.ndarray, frame: tuple[int, ...]) -> bool:
    """Whether it is an ellipse as wide and as high as the frame."""
    height, width = frame
    _, _, wide, tall = cv2.boundingRect(outline)
    if wide <= 0.9 * width or tall <= 0.9 * height:
        return False
    return abs(_area(outline) / ((wide - 1) * (tall - 1)) - math.pi / 4) < 0.02


def _dark_limit(grey: np.ndarray, inside: np.ndarray | None = None) -> float:
    pixels = cumulative_histogram(grey, inside)
    background, bright = percentile(pixels, 0.05), percentile(pixels, 0.995)
    return background + _DARK_SHARE * (bright - background)


def _without_table(bright: np.ndarray, top: int, frame: tuple[int, int]) -> np.ndarray:
    """Drops specks, and components that are wide, flat, thin and low: boards and their rims.

    Args:
        bright: bool [h, w], a part of the frame.
        top: the row of the frame that it begins in.
        frame: height and width.
    """
    height, width = frame
    # two components are at least a pixel apart each way; 16 bits cost half of what 32 do
    small = bright.size < 4 * 2**16
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        bright.view(np.uint8), ltype=cv2.CV_16U if small else cv2.CV_32S
    )
    areas = stats[:, cv2.CC_STAT_AREA]
    first, tall, wide = stats[:, [cv2.CC_STAT_TOP, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_WIDTH]].T
    is_table = np.zeros(len(areas), dtype=bool)
    for low, least, most in (_RIM, _BOARD):
        is_low = top + first + tall > low * height
        is_table |= is_low & (wide > least * width) & (areas < most * height * wide)
    keep = (areas >= 4) & ~(is_table & (tall < 0.45 * wide))
    keep[0] = False  # what is not bright
    return keep.take(labels)


def _without_what_is_below(kept: np.ndarray) -> np.ndarray:
    """Cuts at the first empty row below the heaviest run of rows: ribs leave none inside a body."""
    mass = cv2.reduce(kept.view(np.uint8), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0]
    filled = np.zeros(len(mass) + 2, dtype=bool)  # with an empty row above and below
    filled[1:-1] = mass
    edges = np.flatnonzero(filled[1:] != filled[:-1])
    if len(edges) == 0:
        return kept
    first, behind = edges[::2], edges[1::2]
    return kept[: behind[np.add.reduceat(mass, first).argmax()]]


def _largest_if_it_spans(kept: np.ndarray) -> np.ndarray:
    """The largest solid component where it is most of all, and spans about as much; else all.

    Under windows that show muscle as speckle little is solid, a heart without its chest, say.
    """
    binary = kept.view(np.uint8)
    solid = cv2.erode(binary, _CROSS, iterations=3, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    solid = cv2.dilate(solid, _CROSS, iterations=3)
    least = _LEAST_SOLID * np.count_nonzero(kept)
    if np.count_nonzero(solid) <= least:  # as in most slices, so that the search ends here
        return kept
    _, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=4)
    largest = labels == stats[1:, cv2.CC_STAT_AREA].argmax() + 1
    largest = cv2.dilate(largest.view(np.uint8), _CROSS, iterations=5).view(bool) & kept
    is_most = np.count_nonzero(largest) > least
    return largest if is_most and _extent(largest) > 0.6 * _extent(kept) else kept


def _extent(mask: np.ndarray) -> int:
    left, top, right, bottom = bounding_box(mask)
    return (right - left) * (bottom - top)


def _convex_hull(mask: np.ndarray) -> np.ndarray:
    """Its corners, int32 [n, 1, 2]; none of an empty mask."""
    rows = np.flatnonzero(mask.any(axis=1))
    filled = mask[rows]
    ends = np.empty((2, len(rows), 2), dtype=np.int32)
    ends[0, :, 0] = filled.argmax(axis=1)
    ends[1, :, 0] = mask.shape[1] - 1 - filled[:, ::-1].argmax(axis=1)
    ends[:, :, 1] = rows
    return cv2.convexHull(ends.reshape(-1, 2)) if len(rows) else ends.reshape(0, 1, 2)


def _area(outline: np.ndarray) -> float:
    """Of the polygon through the centres of its pixels."""
    return cv2.contourArea(outline) if len(outline) else 0.0


def _enlarged(outline: np.ndarray, step: int) -> np.ndarray:
    """The outline where each pixel is step x step of them."""
    last = step - 1
    corners = np.array([[0, 0], [last, 0], [0, last], [last, last]], dtype=np.int32)
    return cv2.convexHull((outline * step + corners).reshape(-1, 2))


def _filled(outline: np.ndarray, frame: tuple[int, ...]) -> np.ndarray:
    """The polygon and its edge as 1 in a frame of 0, cut off at its rim: uint8 [h, w]."""
    return cv2.fillConvexPoly(np.zeros(frame, dtype=np.uint8), outline, 1)
