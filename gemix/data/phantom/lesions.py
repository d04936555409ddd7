"""Lesions, and confounders that resemble them.

Pneumonia is patches of ground glass and consolidation, mostly peripheral and on both sides;
cancer is one or two spiculated masses. Scars, dependent atelectasis, granulomas and faint patches
occur in every class, so that a finding alone is no diagnosis.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from gemix.data.phantom.canvas import Canvas, ellipse, smooth_noise
from gemix.data.phantom.patient import LUNG_HEIGHT, Patient

CLASSES = ("normal", "pneumonia", "cancer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patch:
    """An ill-defined density: centre (x, y, z mm), half-axes (mm), HU, opacity 0 to 1."""

    centre: tuple[float, float, float]
    reach: tuple[float, float, float]
    value: float
    opacity: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mass:
    """A lobulated nodule or mass with spicules; `spicules` [n, 2] are angles and lengths (mm)."""

    centre: tuple[float, float, float]
    radius: float
    value: float
    opacity: float
    lobes: np.ndarray
    spicules: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scar:
    """A linear band from start to end (x, y mm) about a level (mm)."""

    start: tuple[float, float]
    end: tuple[float, float]
    level: float
    radius: float


Lesion = Patch | Mass | Scar


def draw_disease(
    rng: np.random.Generator, patient: Patient, name: str, conspicuity: float
) -> list[Lesion]:
    """Draw the lesions of a class; none for "normal" or for a conspicuity of 0.

    Args:
        conspicuity: 0 to 1; scales the opacity and, less, the size of the lesions.
    """
    if name == "normal" or conspicuity == 0:
        return []
    # a patient's own severity is what makes some cases subtle at any conspicuity
    severity = float(np.clip(2 * conspicuity * rng.uniform(0.3, 1.15), 0, 1))
    size = (0.45 + 1.2 * conspicuity) * (0.75 + 0.35 * severity)
    if name == "cancer":
        count = 1 + (rng.random() < 0.25)
        return [_mass(rng, patient, severity, size * rng.uniform(12, 23)) for _ in range(count)]
    if rng.random() < 0.1:  # round pneumonia is taken for a mass by people too
        return [_patch(rng, patient, severity, size * 0.6, value=0.0, side=rng.choice([-1, 1]))]
    first = rng.choice([-1, 1])
    sides = [first, -first if rng.random() < 0.8 else first, *rng.choice([-1, 1], rng.integers(4))]
    lesions = []
    for side in sides:
        dense = rng.random() < 0.35
        value = rng.uniform(-80, 20) if dense else rng.uniform(-520, -330)
        lesions.append(_patch(rng, patient, severity, size, value, side))
    return lesions


def draw_confounders(rng: np.random.Generator, patient: Patient) -> list[Lesion]:
    """Draw findings that mean none of the diseases; most patients have none or one."""
    found: list[Lesion] = []
    if rng.random() < 0.25:
        x, y = _draw_position(rng, patient, 8)
        turn, length = rng.uniform(0, np.pi), rng.uniform(9, 22)
        step = length * np.cos(turn), length * np.sin(turn)
        found.append(
            Scar(
                start=(x - step[0], y - step[1]),
                end=(x + step[0], y + step[1]),
                level=patient.focus * LUNG_HEIGHT,
                radius=rng.uniform(0.9, 2.0),
            )
        )
    if rng.random() < 0.3:
        faint = rng.uniform(0.15, 0.5)
        found.append(_patch(rng, patient, faint, 0.6, -420, rng.choice([-1, 1])))
    if rng.random() < 0.2:
        radius = rng.uniform(2.5, 5.5)
        calcium = rng.choice([20.0, 350.0])
        found.append(_mass(rng, patient, 0.9, radius, value=calcium, spiculated=False))
    return found


def paint_lesions(
    canvas: Canvas, lesions: list[Lesion], patient: Patient, z: float, clip: np.ndarray
) -> None:
    """Paint the part of the lesions that the slice at level `z` (0 to 1) cuts, inside `clip`."""
    level = z * LUNG_HEIGHT
    for lesion in lesions:
        match lesion:
            case Patch():
                _paint_patch(canvas, lesion, patient, z, clip)
            case Mass():
                _paint_mass(canvas, lesion, level, clip)
            case Scar():
                near = float(np.exp(-(((level - lesion.level) / 12) ** 2)))
                canvas.capsule(lesion.start, lesion.end, lesion.radius, -80, clip, 0.9 * near)


def _draw_position(
    rng: np.random.Generator, patient: Patient, margin: float, side: int | None = None
) -> tuple[float, float]:
    """Draw a point in a lung at the patient's level."""
    width, depth = patient.cavity_at(patient.focus)
    for _ in range(200):
        x, y = rng.uniform(-width, width), rng.uniform(-0.8, 0.95) * depth
        x = abs(x) * side if side else x
        if patient.in_lung(x, y, patient.focus, margin):
            return x, y
    return (side or 1) * 0.62 * width, 0.35 * depth


def _patch(
    rng: np.random.Generator, patient: Patient, opacity: float, size: float, value: float, side: int
) -> Patch:
    # the best of three candidates is the most peripheral and lowest, where pneumonia sits
    points = [_draw_position(rng, patient, 7, side) for _ in range(3)]
    x, y = max(points, key=lambda p: abs(p[0]) / patient.cavity[0] + p[1] / patient.cavity[1])
    level = patient.focus * LUNG_HEIGHT + rng.normal(0, 10)
    reach = size * rng.uniform(18, 36), size * rng.uniform(18, 36), rng.uniform(45, 70)
    return Patch(centre=(x, y, level), reach=reach, value=value, opacity=opacity)


def _mass(
    rng: np.random.Generator,
    patient: Patient,
    opacity: float,
    radius: float,
    value: float | None = None,
    spiculated: bool = True,
) -> Mass:
    x, y = _draw_position(rng, patient, min(0.8 * radius, 24))
    count = int(rng.integers(6, 14)) if spiculated else 0
    angles, lengths = rng.uniform(0, 2 * np.pi, count), radius * rng.uniform(0.3, 0.9, count)
    return Mass(
        centre=(x, y, patient.focus * LUNG_HEIGHT + rng.normal(0, 4)),
        radius=radius,
        value=rng.uniform(0, 60) if value is None else value,
        opacity=opacity,
        lobes=rng.normal(0, 0.07 if spiculated else 0.03, (2, 4)),
        spicules=np.stack([angles, lengths], axis=1),
    )


def _paint_patch(canvas: Canvas, patch: Patch, patient: Patient, z: float, clip: np.ndarray):
    x, y, level = patch.centre
    rx, ry, rz = patch.reach
    height = 1 - ((z * LUNG_HEIGHT - level) / rz) ** 2
    if height <= 0:
        return
    where = canvas.window(x, y, 1.5 * max(rx, ry))
    inside = 1 - ellipse(canvas.x[where], canvas.y[where], x, y, rx, ry) / min(rx, ry)
    ragged = smooth_noise(patient.pattern(0, z), canvas.size)[where]
    fine = smooth_noise(np.tile(patient.pattern(1, z), (3, 3)), canvas.size)[where]
    cover = np.clip(0.85 * (inside - 0.75) + 0.28 * ragged + 0.12 * fine, 0, 1) * height**0.5
    # ground glass lets the vessels through, so it lightens instead of replacing
    lightest = np.maximum(canvas.hu[where], patch.value + 45 * fine)
    canvas.blend(np.minimum(1, 1.5 * cover) * patch.opacity * clip[where], lightest, where)


def _paint_mass(canvas: Canvas, mass: Mass, level: float, clip: np.ndarray) -> None:
    x, y, centre = mass.centre
    # taller than wide, so that the slices about the focus show most of it
    reach = max(1.3 * mass.radius, 22 if len(mass.spicules) else 9)
    height = 1 - ((level - centre) / reach) ** 2
    if height <= 0:
        return
    radius = mass.radius * height**0.5
    for angle, length in mass.spicules:
        tip = radius + length * height
        end = x + tip * float(np.cos(angle)), y + tip * float(np.sin(angle))
        canvas.capsule((x, y), end, 0.9, mass.value, clip, 0.75 * mass.opacity)
    where = canvas.window(x, y, 1.6 * radius)
    dx, dy = canvas.x[where] - x, canvas.y[where] - y
    angle, border = np.arctan2(dy, dx), np.ones_like(dx)
    for wave in range(mass.lobes.shape[1]):
        sine, cosine = mass.lobes[:, wave]
        border += sine * np.sin((wave + 2) * angle) + cosine * np.cos((wave + 2) * angle)
    cover = canvas.cover(np.hypot(dx, dy) - radius * border, 2.5) * mass.opacity
    canvas.blend(cover * clip[where], np.maximum(canvas.hu[where], mass.value), where)
