"""Branching vessels of the lungs: trees in three dimensions that slices cut."""

from __future__ import annotations

import numpy as np

from gemix.data.phantom.canvas import Canvas
from gemix.data.phantom.patient import LUNG_HEIGHT, Patient

_GENERATIONS = 6
_SLAB = 3.0  # half the slice thickness, millimetres


def draw_tree(rng: np.random.Generator, patient: Patient) -> np.ndarray:
    """Draw the vessels of both lungs.

    Returns:
        float64 [segments, 7]: start (x, y, z), end (x, y, z) and radius, all in millimetres.
    """
    trees = [_grow(rng, patient, side) for side in (-1.0, 1.0)]
    return np.concatenate(trees)


def _grow(rng: np.random.Generator, patient: Patient, side: float) -> np.ndarray:
    """Grow the tree of one lung: every branch splits in two, turns away and thins out."""
    lobes = 16
    tilt, turn = rng.uniform(-1, 1, lobes), rng.uniform(-0.5, 0.5, lobes) * np.pi * 1.15
    flat = np.sqrt(1 - tilt**2)
    direction = np.stack([side * flat * np.cos(turn), flat * np.sin(turn), tilt * 1.1], axis=1)
    start = np.tile([side * 33.0, -2.0, 0.48 * LUNG_HEIGHT], (lobes, 1))
    start += rng.normal(0, [3, 9, 16], (lobes, 3))
    reach, radius, segments = patient.cavity[0] / 128, np.full(lobes, 4.0), []
    for generation in range(_GENERATIONS):
        length = reach * rng.uniform(20, 34, (len(start), 1)) * 0.86**generation
        end = start + direction * length
        segments.append(np.concatenate([start, end, radius[:, None]], axis=1))
        sideways = rng.normal(0, 1, (len(start), 3))
        sideways -= direction * (sideways * direction).sum(axis=1, keepdims=True)
        sideways /= np.linalg.norm(sideways, axis=1, keepdims=True)
        spread = rng.uniform(0.25, 0.7, (len(start), 1))
        direction = np.concatenate([direction + spread * sideways, direction - spread * sideways])
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        start = np.concatenate([end, end])
        radius = np.concatenate([radius, radius]) * rng.uniform(0.6, 0.8, 2 * len(radius))
    return np.concatenate(segments)


def paint_tree(canvas: Canvas, tree: np.ndarray, patient: Patient, z: float, clip: np.ndarray):
    """Paint the vessels in the slice: rounds where one crosses it, lines where it runs in it.

    Args:
        z: level of the slice, 0 to 1.
        clip: [size, size], the lungs' coverage.
    """
    low, high = z * LUNG_HEIGHT - _SLAB, z * LUNG_HEIGHT + _SLAB
    start, end, radius = tree[:, :3], tree[:, 3:6], tree[:, 6]
    rise = end[:, 2] - start[:, 2]
    rise = np.where(np.abs(rise) < 1e-6, 1e-6, rise)
    enter, leave = np.sort([(low - start[:, 2]) / rise, (high - start[:, 2]) / rise], axis=0)
    enter, leave = np.clip(enter, 0, 1), np.clip(leave, 0, 1)
    visible = np.flatnonzero((leave > enter) & (radius > 0.35))
    first = start[:, :2] + enter[:, None] * (end - start)[:, :2]
    last = start[:, :2] + leave[:, None] * (end - start)[:, :2]
    # large vessels last, so that thin ones do not cut into them
    for i in visible[np.argsort(radius[visible])]:
        canvas.capsule(tuple(first[i]), tuple(last[i]), radius[i], patient.blood - 5, clip)
