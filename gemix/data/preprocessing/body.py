"""Find the body in a slice by a threshold and connected components, without the table.

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

_SIDE = 256  # pixels a side, about, of the reduced image that is searched
_DARK_FRACTION = 0.1  # of the way from background to bright, where bone-windowed muscle begins
_MIN_BODY = 0.1  # of the frame; below, the whole frame is kept
_MIN_SOLID = 0.7  # of all that may be body; see _select_body
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))  # a pixel and its 4 neighbours

# Tables: the height below which they reach, their minimum width and maximum mean thickness, as
# fractions of the frame.
_RIM, _BOARD = (0.6, 0.1, 0.02), (0.7, 0.55, 0.06)


def body_mask(pixels: np.ndarray, threshold: float | None = None) -> np.ndarray:
    """Return the body with its lungs, as a convex region.

    Args:
        pixels: [H, W], uint8 grey or float32 Hounsfield units.
        threshold: pixels above it are body or table; None chooses it between the background and
            the bright parts of a grey image.

    Returns:
        bool [H, W]; all True if no body is found.
    """
    step = max(1, min(pixels.shape) // _SIDE)
    reduced = _reduce(pixels, step)
    if threshold is None:
        outline = _find_outline(reduced, _choose_threshold(reduced))
        if _is_field_of_view(outline, reduced.shape):  # black beyond a circle of grey air
            inside = _polygon_mask(outline, reduced.shape)
            outline = _find_outline(reduced, _choose_threshold(reduced, inside))
    else:
        outline = _find_outline(reduced, threshold)
    if _area(outline) < _MIN_BODY * reduced.size:
        return np.ones(pixels.shape, dtype=bool)
    return _polygon_mask(_enlarge(outline, step), pixels.shape).view(bool)


def bounding_box(mask: np.ndarray) -> Box:
    """Return the smallest box around the True pixels of a mask, which has some."""
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    return left, top, left + width, top + height


def _reduce(pixels: np.ndarray, step: int) -> np.ndarray:
    """Average blocks of step x step pixels; the last row and column are repeated to fill blocks."""
    height, width = pixels.shape
    down, right = -height % step, -width % step
    if down or right:
        pixels = cv2.copyMakeBorder(pixels, 0, down, 0, right, cv2.BORDER_REPLICATE)
    return cv2.resize(pixels, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)


def _find_outline(reduced: np.ndarray, threshold: float) -> np.ndarray:
    """Return the convex hull of the body in the reduced image.

    Returns:
        int32 [n, 1, 2], columns and rows of corners, an OpenCV polygon; empty if there is no body.
    """
    bright = reduced > threshold
    # labelling components costs most, so the air around body and table is cut off
    left, top, right, bottom = bounding_box(bright)
    if right == left:
        return np.empty((0, 1, 2), dtype=np.int32)
    kept = _remove_table(bright[top:bottom, left:right], top, bright.shape)
    kept = _select_body(_cut_below_body(kept))
    return _convex_hull(kept) + np.array([left, top], dtype=np.int32)


def _is_field_of_view(outline: np.ndarray, frame: tuple[int, ...]) -> bool:
    """Return whether the outline is an ellipse that fills the frame."""
    height, width = frame
    _, _, wide, tall = cv2.boundingRect(outline)
    if wide <= 0.9 * width or tall <= 0.9 * height:
        return False
    return abs(_area(outline) / ((wide - 1) * (tall - 1)) - math.pi / 4) < 0.02


def _choose_threshold(grey: np.ndarray, inside: np.ndarray | None = None) -> float:
    counts = cumulative_histogram(grey, inside)
    background, bright = percentile(counts, 0.05), percentile(counts, 0.995)
    return background + _DARK_FRACTION * (bright - background)


def _remove_table(bright: np.ndarray, top: int, frame: tuple[int, int]) -> np.ndarray:
    """Remove specks, and components that are wide, flat, thin and low: boards and their rims.

    Args:
        bright: bool [h, w], a part of the frame.
        top: the first row of that part.
        frame: height and width.
    """
    height, width = frame
    # components are a pixel apart each way, so 16 bits may suffice, at half the cost of 32
    small = bright.size < 4 * 2**16
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        bright.view(np.uint8), ltype=cv2.CV_16U if small else cv2.CV_32S
    )
    areas = stats[:, cv2.CC_STAT_AREA]
    first, tall, wide = stats[:, [cv2.CC_STAT_TOP, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_WIDTH]].T
    is_table = np.zeros(len(areas), dtype=bool)
    for low, min_width, max_thickness in (_RIM, _BOARD):
        is_low = top + first + tall > low * height
        is_table |= is_low & (wide > min_width * width) & (areas < max_thickness * height * wide)
    keep = (areas >= 4) & ~(is_table & (tall < 0.45 * wide))
    keep[0] = False  # the background
    return keep.take(labels)


def _cut_below_body(kept: np.ndarray) -> np.ndarray:
    """Cut at the first empty row below the heaviest run of rows.

    Inside a body no row is empty, even if it shows ribs alone.
    """
    mass = cv2.reduce(kept.view(np.uint8), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0]
    filled = np.zeros(len(mass) + 2, dtype=bool)  # with an empty row above and below
    filled[1:-1] = mass
    edges = np.flatnonzero(filled[1:] != filled[:-1])
    if len(edges) == 0:
        return kept
    first, behind = edges[::2], edges[1::2]
    return kept[: behind[np.add.reduceat(mass, first).argmax()]]


def _select_body(kept: np.ndarray) -> np.ndarray:
    """Return the largest solid component if it is most of all and spans as much, else all.

    Where windows show muscle as speckle, the largest solid component may be the heart alone.
    """
    binary = kept.view(np.uint8)
    solid = cv2.erode(binary, _CROSS, iterations=3, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    solid = cv2.dilate(solid, _CROSS, iterations=3)
    minimum = _MIN_SOLID * np.count_nonzero(kept)
    if np.count_nonzero(solid) <= minimum:  # true of most slices, and saves the search
        return kept
    _, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=4)
    largest = labels == stats[1:, cv2.CC_STAT_AREA].argmax() + 1
    largest = cv2.dilate(largest.view(np.uint8), _CROSS, iterations=5).view(bool) & kept
    is_most = np.count_nonzero(largest) > minimum
    return largest if is_most and _extent(largest) > 0.6 * _extent(kept) else kept


def _extent(mask: np.ndarray) -> int:
    left, top, right, bottom = bounding_box(mask)
    return (right - left) * (bottom - top)


def _convex_hull(mask: np.ndarray) -> np.ndarray:
    """Return the corners of a mask's convex hull, int32 [n, 1, 2]; none of an empty mask."""
    rows = np.flatnonzero(mask.any(axis=1))
    filled = mask[rows]
    ends = np.empty((2, len(rows), 2), dtype=np.int32)
    ends[0, :, 0] = filled.argmax(axis=1)
    ends[1, :, 0] = mask.shape[1] - 1 - filled[:, ::-1].argmax(axis=1)
    ends[:, :, 1] = rows
    return cv2.convexHull(ends.reshape(-1, 2)) if len(rows) else ends.reshape(0, 1, 2)


def _area(outline: np.ndarray) -> float:
    """Return the area of the polygon through the centres of its corner pixels."""
    return cv2.contourArea(outline) if len(outline) else 0.0


def _enlarge(outline: np.ndarray, step: int) -> np.ndarray:
    """Scale an outline so that each of its pixels becomes step x step."""
    last = step - 1
    corners = np.array([[0, 0], [last, 0], [0, last], [last, last]], dtype=np.int32)
    return cv2.convexHull((outline * step + corners).reshape(-1, 2))


def _polygon_mask(outline: np.ndarray, frame: tuple[int, ...]) -> np.ndarray:
    """Draw the polygon with its edge as 1 in a frame of 0: uint8 [h, w]."""
    return cv2.fillConvexPoly(np.zeros(frame, dtype=np.uint8), outline, 1)
