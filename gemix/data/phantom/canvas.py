"""Painting in millimetres: anti-aliased ellipses and capsules, and smooth noise.

Coordinates are the patient's: x to the patient's left (right in the image), y to the back (down),
the origin in the middle of the chest. A shape's edge is one pixel wide, like a scanner's partial
volume effect.
"""

from __future__ import annotations

import numpy as np

Window = tuple[slice, slice]
EVERYWHERE: Window = (slice(None), slice(None))


class Canvas:
    """Hounsfield units on a square grid.

    Args:
        size: side in pixels.
        fov: side in millimetres.
        rotation: rotation of the patient, in radians.
        shift: shift of the patient, (x, y) in millimetres.

    Attributes:
        hu: float32 [size, size], air at first.
        x, y: float32 [size, size], the patient's coordinates of each pixel.
        pixel: size of a pixel in millimetres.
    """

    def __init__(self, size: int, fov: float, rotation: float, shift: tuple[float, float]):
        self.size, self.fov, self.pixel = size, fov, fov / size
        self.rotation, self.shift = rotation, shift
        axis = ((np.arange(size) + 0.5) * self.pixel - fov / 2).astype(np.float32)
        x, y = axis[None, :] - np.float32(shift[0]), axis[:, None] - np.float32(shift[1])
        cos, sin = np.float32(np.cos(rotation)), np.float32(np.sin(rotation))
        self.x, self.y = x * cos + y * sin, y * cos - x * sin
        self.hu = np.full((size, size), -1000, dtype=np.float32)

    def window(self, x: float, y: float, reach: float) -> Window:
        """Return the pixels within `reach` millimetres of a point, as a square of the grid."""
        cos, sin = np.cos(self.rotation), np.sin(self.rotation)
        column = x * cos - y * sin + self.shift[0] + self.fov / 2
        row = x * sin + y * cos + self.shift[1] + self.fov / 2
        bounds = [
            slice(
                max(0, int((centre - reach) / self.pixel) - 1),
                max(0, int((centre + reach) / self.pixel) + 2),
            )
            for centre in (row, column)
        ]
        return bounds[0], bounds[1]

    def cover(self, distance: np.ndarray, softness: float = 0.0) -> np.ndarray:
        """Return the share of each pixel that is inside, 0 to 1.

        Args:
            distance: signed, in millimetres, negative inside.
            softness: width of a blurred edge, in millimetres; at least a pixel.
        """
        return np.clip(0.5 - distance / max(softness, self.pixel), 0, 1)

    def blend(self, cover: np.ndarray, value: np.ndarray | float, where: Window = EVERYWHERE):
        """Blend `value` (HU) with the weights `cover`."""
        self.hu[where] += cover * (value - self.hu[where])

    def ellipse(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        value: float,
        angle: float = 0.0,
        softness: float = 0.0,
        clip: np.ndarray | None = None,
    ) -> None:
        """Paint an ellipse with half-axes `rx`, `ry`; `clip` [size, size] fades it."""
        where = self.window(x, y, max(rx, ry) + softness + self.pixel)
        if self.hu[where].size == 0:
            return
        distance = ellipse(self.x[where], self.y[where], x, y, rx, ry, angle)
        cover = self.cover(distance, softness)
        self.blend(cover if clip is None else cover * clip[where], value, where)

    def capsule(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        radius: float,
        value: float,
        clip: np.ndarray | None = None,
        opacity: float = 1.0,
    ) -> None:
        """Paint a line with round ends; one thinner than a pixel is fainter instead."""
        middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        length = float(np.hypot(end[0] - start[0], end[1] - start[1]))
        where = self.window(*middle, length / 2 + radius + self.pixel)
        if self.hu[where].size == 0:
            return
        dx, dy = self.x[where] - start[0], self.y[where] - start[1]
        along = (dx * (end[0] - start[0]) + dy * (end[1] - start[1])) / max(length, 1e-6) ** 2
        along = np.clip(along, 0, 1)
        off = np.hypot(dx - along * (end[0] - start[0]), dy - along * (end[1] - start[1]))
        visible = max(radius, self.pixel / 2)
        cover = self.cover(off - visible) * (opacity * radius / visible)
        self.blend(cover if clip is None else cover * clip[where], value, where)


def ellipse(
    x: np.ndarray,
    y: np.ndarray,
    cx: float,
    cy: float,
    rx: float,
    ry: float,
    angle: float = 0.0,
    power: float = 2.0,
) -> np.ndarray:
    """Return the signed distance to a (super-)ellipse in mm, to first order; negative inside."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = x - np.float32(cx), y - np.float32(cy)
    u = np.abs(dx * cos + dy * sin) / np.float32(rx)
    v = np.abs(dy * cos - dx * sin) / np.float32(ry)
    if power == 2:
        f = np.sqrt(u * u + v * v) + np.float32(1e-6)
        slope = np.hypot(u / np.float32(rx), v / np.float32(ry)) / f
    else:
        up, vp = u ** np.float32(power - 1), v ** np.float32(power - 1)
        f = (up * u + vp * v) ** np.float32(1 / power) + np.float32(1e-6)
        slope = np.hypot(up / np.float32(rx), vp / np.float32(ry)) / f ** np.float32(power - 1)
    return (f - 1) / (slope + np.float32(1e-6))


def smooth_max(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Return the larger of two distances, with the corner rounded over `width` millimetres."""
    return 0.5 * (a + b + np.sqrt((a - b) ** 2 + np.float32(width) ** 2))


def smooth_noise(coarse: np.ndarray, size: int) -> np.ndarray:
    """Interpolate coarse noise [k, k] smoothly to [size, size]."""
    cells = len(coarse)
    at = np.linspace(0, cells - 1, size, dtype=np.float32)[:, None]
    basis = np.exp(-((at - np.arange(cells, dtype=np.float32)) ** 2) / np.float32(0.5))
    basis /= np.sqrt((basis**2).sum(axis=1, keepdims=True))
    return basis @ coarse.astype(np.float32) @ basis.T
