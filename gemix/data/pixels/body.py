"""Where the body is in a slice: thresholding, connected components, and no table.

Published slices come in every window. Under a bone window muscle is speckle, fat is black, and
nothing but bones stands out, so the largest component alone may be a rib or the table. Components
that have a table's shape are therefore dropped first, and the body is the convex hull of its
largest component or, where that does not span what is left, of everything that is left.
"""

from __future__ import annotations

import math

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
        pixels: [H, W], uint8 grey or float32 Hounsfield units.
        threshold: what is above belongs to body or table; None chooses it between a grey image's
            background and its bright parts.

    Returns:
        bool [H, W]; all True where nothing looks like a body.
    """
    step = max(1, min(pixels.shape) // _SIDE)
    reduced = Image.fromarray(pixels).reduce(step)
    if threshold is None:
        hull = _hull(reduced, _dark_limit(reduced.histogram()))
        if _is_field_of_view(hull):  # black beyond a circle of grey air: look inside it
            inside = Image.fromarray(hull.view(np.uint8))
            hull = _hull(reduced, _dark_limit(reduced.histogram(inside)))
    else:
        hull = _hull(reduced, threshold)
    if np.count_nonzero(hull) < _LEAST_BODY * hull.size:
        return np.ones(pixels.shape, dtype=bool)
    height, width = pixels.shape
    return hull.repeat(step, axis=1)[:, :width].repeat(step, axis=0)[:height]


def bounding_box(mask: np.ndarray) -> Box:
    """The smallest box about the True pixels of a mask that has some."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _hull(reduced: Image.Image, threshold: float) -> np.ndarray:
    kept = _without_what_is_below(_without_table(np.asarray(reduced) > threshold))
    return _convex_hull(_largest_if_it_spans(kept))


def _is_field_of_view(hull: np.ndarray) -> bool:
    """Whether it is an ellipse as wide and as high as the frame."""
    if not hull.any():
        return False
    left, top, right, bottom = bounding_box(hull)
    height, width = hull.shape
    spans = right - left > 0.9 * width and bottom - top > 0.9 * height
    share = np.count_nonzero(hull) / ((right - left) * (bottom - top))
    return spans and abs(share - math.pi / 4) < 0.02


def _dark_limit(histogram: list[int]) -> float:
    background, bright = _percentile(histogram, 0.05), _percentile(histogram, 0.995)
    return background + _DARK_SHARE * (bright - background)


def _percentile(histogram: list[int], share: float) -> float:
    """The grey that `share` of the pixels lie below, as numpy.percentile has it, sooner."""
    pixels = np.cumsum(histogram)
    place = share * (pixels[-1] - 1)
    below = math.floor(place)
    low, high = np.searchsorted(pixels, [below, below + 1], side="right").tolist()
    return low + (high - low) * (place - below)


def _without_table(bright: np.ndarray) -> np.ndarray:
    """Drops specks, and components that are wide, flat, thin and low: boards and their rims."""
    height, width = bright.shape
    labels, areas = _components(bright, _TOUCHING)
    keep = areas >= 4
    keep[0] = False
    places = ndimage.find_objects(labels)
    # the least table is a tenth of the frame wide, so what has fewer pixels is none
    for label in np.flatnonzero(keep & (areas > 0.1 * width)).tolist():
        rows, columns = places[label - 1]
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        thickness = areas[label] / wide / height
        flat = tall < 0.45 * wide
        rim = wide > 0.1 * width and thickness < 0.02 and rows.stop > 0.6 * height
        board = wide > 0.55 * width and thickness < 0.06 and rows.stop > 0.7 * height
        keep[label] = not (flat and (rim or board))
    return keep[labels]


def _without_what_is_below(kept: np.ndarray) -> np.ndarray:
    """Cuts at the first empty row below the heaviest run of rows: ribs leave none inside a body."""
    mass = np.count_nonzero(kept, axis=1)
    edges = np.flatnonzero(np.diff(mass > 0, prepend=False, append=False))
    if len(edges) == 0:
        return kept
    first, behind = edges[::2], edges[1::2]
    bottom = behind[np.add.reduceat(mass, first).argmax()]
    return kept & (np.arange(len(kept)) < bottom)[:, None]


def _largest_if_it_spans(kept: np.ndarray) -> np.ndarray:
    """The largest solid component where its extent is about that of all; else all."""
    eroded = ~_dilated(~kept, 3, beyond=True)
    labels, areas = _components(_dilated(eroded, 3))
    if len(areas) == 1:
        return kept
    largest = _dilated(labels == areas[1:].argmax() + 1, 4) & kept
    return largest if _extent(largest) > 0.6 * _extent(kept) else kept


def _components(
    mask: np.ndarray, touching: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels, 0 outside the mask, and the pixels of each label; by default of 4 neighbours."""
    labels, count = ndimage.label(mask, touching, output=np.intp)  # what bincount does not copy
    return labels, np.bincount(labels.ravel(), minlength=count + 1)


def _dilated(mask: np.ndarray, steps: int, beyond: bool = False) -> np.ndarray:
    """Grows by so many steps to the 4 neighbours; `beyond` is what lies outside the frame.

    What SciPy's binary_dilation gives, ten times as quickly: whole rows are or-ed at once, as one
    line of memory. The apron is as wide as the mask can grow, so no row reaches into the next.
    """
    height, width = mask.shape
    stride = width + 2 * steps
    canvas = np.full((height + 2 * steps, stride), beyond)
    canvas[steps:-steps, steps:-steps] = mask
    line = canvas.ravel()
    for _ in range(steps):
        grown = line.copy()
        for shift in (1, stride):
            grown[shift:] |= line[:-shift]
            grown[:-shift] |= line[shift:]
        line = grown
    return line.reshape(canvas.shape)[steps:-steps, steps:-steps]


def _extent(mask: np.ndarray) -> int:
    left, top, right, bottom = bounding_box(mask)
    return (right - left) * (bottom - top)


def _convex_hull(mask: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    points = np.stack([np.concatenate([first, last]), np.tile(rows, 2)], axis=1)
    try:
        corners = points[ConvexHull(points).vertices]
    except (QhullError, ValueError):  # fewer than three points, or all on a line
        return np.zeros(mask.shape, dtype=bool)
    canvas = Image.new("L", (mask.shape[1], mask.shape[0]))
    ImageDraw.Draw(canvas).polygon(corners.ravel().tolist(), fill=1, outline=1)
    return np.asarray(canvas).view(bool)
