"""Where the body is in a slice: thresholding, connected components, and no table.

Published slices come in every window. Under a bone window muscle is speckle, fat is black, and
nothing but bones stands out, so the largest component alone may be a rib or the table. Components
that have a table's shape are therefore dropped first, and the body is the convex hull of its
largest component or, where that does not span what is left, of everything that is left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from gemix.data.scan import Box

_SIDE = 256  # pixels a side, about, of the reduced image in which the body is looked for
_DARK_SHARE = 0.1  # of the way from background to bright: where bone-windowed muscle begins
_LEAST_BODY = 0.1  # of the frame; a smaller find is no body, and the whole frame is kept
_LEAST_SOLID = 0.7  # of all that may be body; see _largest_if_it_spans
_TOUCHING = np.ones((3, 3), dtype=bool)  # diagonal neighbours belong together

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
    return _enlarged(hull, step)[:height, :width]


def bounding_box(mask: np.ndarray) -> Box:
    """The smallest box about the True pixels of a mask that has some."""
    return Image.fromarray(np.ascontiguousarray(mask).view(np.uint8)).getbbox()


def _hull(reduced: Image.Image, threshold: float) -> np.ndarray:
    """The body in the reduced image: bool [h, w]; all False where there is nothing."""
    bright = np.asarray(reduced) > threshold
    if not bright.any():
        return bright
    # components are what costs; air around the body and the table has none
    left, top, right, bottom = bounding_box(bright)
    kept = _without_table(bright[top:bottom, left:right], top, bright.shape)
    kept = _largest_if_it_spans(_without_what_is_below(kept))
    return _convex_hull(kept, left, top, bright.shape)


def _is_field_of_view(hull: np.ndarray) -> bool:
    """Whether it is an ellipse as wide and as high as the frame."""
    if not hull.any():
        return False
    left, top, right, bottom = bounding_box(hull)
    height, width = hull.shape
    if right - left <= 0.9 * width or bottom - top <= 0.9 * height:
        return False
    share = np.count_nonzero(hull) / ((right - left) * (bottom - top))
    return abs(share - math.pi / 4) < 0.02


def _dark_limit(histogram: list[int]) -> float:
    pixels = np.cumsum(histogram)
    background, bright = _percentile(pixels, 0.05), _percentile(pixels, 0.995)
    return background + _DARK_SHARE * (bright - background)


def _percentile(pixels: np.ndarray, share: float) -> float:
    """The grey that `share` of the pixels lie below, as numpy.percentile has it, sooner.

    Args:
        pixels: int64 [256], how many are as dark as each grey or darker.
    """
    place = share * (int(pixels[-1]) - 1)
    below = math.floor(place)
    low, high = pixels.searchsorted([below, below + 1], side="right").tolist()
    return low + (high - low) * (place - below)


def _without_table(bright: np.ndarray, top: int, frame: tuple[int, int]) -> np.ndarray:
    """Drops specks, and components that are wide, flat, thin and low: boards and their rims.

    Args:
        bright: bool [h, w], a part of the frame.
        top: the row of the frame that it begins in.
        frame: height and width.
    """
    height, width = frame
    labels, areas = _components(bright, _TOUCHING)
    keep = areas >= 4
    keep[0] = False
    maybe = keep & (areas > _RIM[1] * width) & (areas < _BOARD[2] * width * height)
    lowest = labels[max(0, int(_RIM[0] * height) - top) :]
    maybe &= np.bincount(lowest.ravel(), minlength=len(areas)) > 0
    for label in np.flatnonzero(maybe).tolist():
        left, first, right, end = bounding_box(labels == label)
        tall, wide = end - first, right - left
        thickness = areas[label] / wide / height
        is_table = any(
            top + end > low * height and wide > least * width and thickness < most
            for low, least, most in (_RIM, _BOARD)
        )
        keep[label] = not (tall < 0.45 * wide and is_table)
    return keep[labels]


def _without_what_is_below(kept: np.ndarray) -> np.ndarray:
    """Cuts at the first empty row below the heaviest run of rows: ribs leave none inside a body."""
    mass = kept.sum(axis=1)
    edges = np.flatnonzero(np.diff(mass > 0, prepend=False, append=False))
    if len(edges) == 0:
        return kept
    first, behind = edges[::2], edges[1::2]
    return kept[: behind[np.add.reduceat(mass, first).argmax()]]


def _largest_if_it_spans(kept: np.ndarray) -> np.ndarray:
    """The largest solid component where it is most of all, and spans about as much; else all.

    Under windows that show muscle as speckle little is solid, a heart without its chest, say.
    """
    solid = _dilated(~_dilated(~kept, 3, beyond=True), 3)
    least = _LEAST_SOLID * np.count_nonzero(kept)
    if np.count_nonzero(solid) <= least:  # as in most slices, so that the search ends here
        return kept
    # what is so solid hangs together at half the size too
    labels, areas = _components(_halved(solid))
    if len(areas) == 1:
        return kept
    largest = _enlarged(labels == areas[1:].argmax() + 1, 2)[: len(kept), : kept.shape[1]]
    largest = _dilated(largest, 5) & kept
    is_most = np.count_nonzero(largest) > least
    return largest if is_most and _extent(largest) > 0.6 * _extent(kept) else kept


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


def _halved(mask: np.ndarray) -> np.ndarray:
    """Where all of 2 x 2 pixels are True: bool [h / 2, w / 2], rounded up."""
    height, width = mask.shape
    even = np.zeros((height + height % 2, width + width % 2), dtype=bool)
    even[:height, :width] = mask
    pairs = even.view(np.uint16)  # of two pixels each
    return (pairs[::2] & pairs[1::2]) == 0x0101


def _enlarged(mask: np.ndarray, step: int) -> np.ndarray:
    """Each pixel as step x step of them."""
    wide = np.empty((mask.shape[0], mask.shape[1] * step), dtype=bool)
    for column in range(step):
        wide[:, column::step] = mask
    return wide.repeat(step, axis=0)


def _extent(mask: np.ndarray) -> int:
    left, top, right, bottom = bounding_box(mask)
    return (right - left) * (bottom - top)


def _convex_hull(mask: np.ndarray, left: int, top: int, frame: tuple[int, int]) -> np.ndarray:
    """The convex hull of a part of the frame, from `left` and `top` on, in the whole frame."""
    rows = np.flatnonzero(mask.any(axis=1))
    filled = mask[rows]
    first = left + filled.argmax(axis=1)
    last = left + mask.shape[1] - 1 - filled[:, ::-1].argmax(axis=1)
    down = (top + rows).tolist()
    # the right side is the left one of the mirrored picture
    right = [(-x, y) for x, y in _left_side(zip((-last).tolist(), down, strict=True))]
    corners = _left_side(zip(first.tolist(), down, strict=True)) + right[::-1]
    canvas = Image.new("L", frame[::-1])
    if len(corners) > 2:
        ImageDraw.Draw(canvas).polygon(corners, fill=1, outline=1)
    return np.asarray(canvas).view(bool)


def _left_side(points: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The corners of the hull's left side, downwards, of one point (x, y) a row, downwards.

    Andrew's monotone chain (Information Processing Letters 9, 1979).
    """
    chain: list[tuple[int, int]] = []
    for x, y in points:
        while len(chain) > 1:
            (x0, y0), (x1, y1) = chain[-2:]
            if (x1 - x0) * (y - y0) < (y1 - y0) * (x - x0):
                break
            chain.pop()
        chain.append((x, y))
    return chain
