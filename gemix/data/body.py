"""Where the body is in a slice: thresholding, connected components, and no table.

Published slices come in every window. Under a bone window muscle is speckle, fat is black, and
nothing but bones stands out, so the largest component alone may be a rib or the table. Components
that have a table's shape are therefore dropped first, and the body is the convex hull of its
largest component or, where that does not span what is left, of everything that is left.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from gemix.data.scan import Box

_SIDE = 256  # pixels a side, about, of the reduced image in which the body is looked for
_DARK_SHARE = 0.1  # of the way from background to bright: where bone-windowed muscle begins
_LEAST_BODY = 0.1  # of the frame; a smaller find is no body, and the whole frame is kept
_TOUCHING = np.ones((3, 3), dtype=bool)  # diagonal neighbours belong together


def body_mask(pixels: np.ndarray, threshold: float | None = None) -> np.ndarray:
    """The body with its lungs, as a convex region.

    Args:
        pixels: [H, W], grey or Hounsfield units.
        threshold: what is above belongs to body or table; None chooses it between the image's
            background and its bright parts.

    Returns:
        bool [H, W]; all True where nothing looks like a body.
    """
    step = max(1, min(pixels.shape) // _SIDE)
    reduced = np.asarray(Image.fromarray(pixels).reduce(step), dtype=np.float32)
    if threshold is None:
        background, bright = np.percentile(reduced, [5, 99.5])
        threshold = background + _DARK_SHARE * (bright - background)
    kept = _without_what_is_below(_without_table(reduced > threshold))
    hull = _convex_hull(_largest_if_it_spans(kept))
    if hull.mean() < _LEAST_BODY:
        return np.ones(pixels.shape, dtype=bool)
    height, width = pixels.shape
    return hull.repeat(step, axis=0).repeat(step, axis=1)[:height, :width]


def bounding_box(mask: np.ndarray) -> Box:
    """The smallest box about the True pixels of a mask that has some."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _without_table(bright: np.ndarray) -> np.ndarray:
    """Drops specks, and components that are wide, flat, thin and low: boards and their rims."""
    height, width = bright.shape
    labels, count = ndimage.label(bright, _TOUCHING)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    keep = np.zeros(count + 1, dtype=bool)
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        thickness = areas[label] / wide / height
        flat = tall < 0.45 * wide
        rim = wide > 0.1 * width and thickness < 0.02 and rows.stop > 0.6 * height
        board = wide > 0.55 * width and thickness < 0.06 and rows.stop > 0.7 * height
        keep[label] = areas[label] >= 4 and not (flat and (rim or board))
    return keep[labels]


def _without_what_is_below(kept: np.ndarray) -> np.ndarray:
    """Cuts at the first empty row below the heaviest run of rows: ribs leave none inside a body."""
    mass = kept.sum(axis=1)
    runs, count = ndimage.label(mass > 0)
    if count == 0:
        return kept
    weights = np.bincount(runs, weights=mass)
    weights[0] = 0
    bottom = np.flatnonzero(runs == weights.argmax())[-1]
    return kept & (np.arange(len(kept)) <= bottom)[:, None]


def _largest_if_it_spans(kept: np.ndarray) -> np.ndarray:
    """The largest solid component where its extent is about that of all; else all."""
    labels, count = ndimage.label(ndimage.binary_opening(kept, iterations=3))
    if count == 0:
        return kept
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    largest = ndimage.binary_dilation(labels == areas.argmax(), iterations=4) & kept
    return largest if _extent(largest) > 0.6 * _extent(kept) else kept


def _extent(mask: np.ndarray) -> int:
    left, top, right, bottom = bounding_box(mask)
    return (right - left) * (bottom - top)


def _convex_hull(mask: np.ndarray) -> np.ndarray:
    points = np.argwhere(mask)[:, ::-1]
    try:
        corners = points[ConvexHull(points).vertices]
    except (QhullError, ValueError):  # fewer than three points, or all on a line
        return np.zeros(mask.shape, dtype=bool)
    canvas = Image.new("1", (mask.shape[1], mask.shape[0]))
    ImageDraw.Draw(canvas).polygon([tuple(map(int, c)) for c in corners], fill=1, outline=1)
    return np.array(canvas)
