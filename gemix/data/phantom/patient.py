"""Anatomy of a phantom patient: sizes and densities, drawn once for each patient."""

from __future__ import annotations

import dataclasses
from typing import Self

import numpy as np

BLOOD = 45.0  # HU of blood without contrast agent
LUNG_HEIGHT = 220.0  # millimetres from apex (z = 0) to base (z = 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patient:
    """Sizes in millimetres (half-axes), densities in HU, `z` from 0 (apex) to 1 (base).

    `focus` is the level about which the patient's slices are taken.
    """

    focus: float
    body: tuple[float, float]
    fat: float
    cavity: tuple[float, float]
    breasts: float
    heart: float
    heart_angle: float
    aorta: float
    blood: float
    mediastinal_fat: float
    muscle: float
    bone: float
    lung: float
    lung_texture: float
    rib_phase: float
    table: float
    fov: float
    rotation: float
    shift: tuple[float, float]
    noise: float
    patterns: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw a patient at random."""
        size, stout = rng.normal(1, 0.06), rng.uniform(0, 1)
        fat = 5 + 19 * stout**1.5
        width, depth = 128 * size * rng.normal(1, 0.03), 88 * size * rng.normal(1, 0.04)
        wall = rng.uniform(16, 24)
        body = width + fat + wall + 2, depth + 0.85 * fat + wall + 4
        return cls(
            focus=rng.uniform(0.34, 0.72),
            body=body,
            fat=fat,
            cavity=(width, depth),
            breasts=rng.uniform(0.4, 1) * stout if rng.random() < 0.45 else 0.0,
            heart=rng.normal(1, 0.09) * size,
            heart_angle=rng.uniform(0.3, 0.75),
            aorta=rng.uniform(10, 15),
            blood=rng.choice([BLOOD, rng.uniform(110, 220)]),
            mediastinal_fat=-95 + 90 * rng.random() * (1 - 0.6 * stout),
            muscle=rng.uniform(45, 65),
            bone=rng.uniform(0.75, 1.15),
            lung=rng.normal(-865, 22),
            lung_texture=rng.uniform(8, 22),
            rib_phase=rng.uniform(0, 1),
            table=rng.uniform(4, 10),
            fov=2 * max(body) * rng.uniform(1.06, 1.18),
            rotation=rng.normal(0, 0.045),
            shift=(rng.normal(0, 5), rng.normal(-6, 4)),
            noise=rng.uniform(10, 32),
            patterns=rng.standard_normal((2, 2, 16, 16)),
        )

    def scanned(self, *, noise: float, field_of_view: float, contrast_agent: float) -> Self:
        """Return the patient as another scanner or protocol shows them.

        Args:
            noise, field_of_view: multiples of those that were drawn.
            contrast_agent: multiple of the enhancement of blood.
        """
        return dataclasses.replace(
            self,
            noise=noise * self.noise,
            fov=field_of_view * self.fov,
            blood=BLOOD + contrast_agent * (self.blood - BLOOD),
        )

    def cavity_at(self, z: float) -> tuple[float, float]:
        """Return half-width and half-depth of the rib cage's inside; it narrows to the apex."""
        grown = 0.80 + 0.20 * min(1.0, max(0.0, z - 0.1) / 0.4) ** 0.7
        return self.cavity[0] * grown, self.cavity[1] * (0.5 + 0.5 * grown)

    def heart_at(self, z: float) -> tuple[float, float, float, float, float]:
        """Return centre x, y, half-axes and angle of the heart, or the great vessels above it."""
        grown = float(np.clip((z - 0.36) / 0.28, 0, 1)) ** 0.8
        rx, ry = (26 + 32 * grown) * self.heart, (19 + 21 * grown) * self.heart
        front = -self.cavity_at(z)[1]
        return 3 + 19 * grown, front + 14 + ry, rx, ry, self.heart_angle * grown

    def in_lung(self, x: float, y: float, z: float, margin: float) -> bool:
        """Return whether a point is in a lung, `margin` millimetres or more from its border."""
        width, depth = self.cavity_at(z)
        hx, hy, hrx, hry, _ = self.heart_at(z)
        rib_cage = (abs(x) / (width - margin)) ** 2.3 + (abs(y) / (depth - margin)) ** 2.3 < 1
        heart = np.hypot((x - hx) / (hrx + margin + 3), (y - hy) / (hry + margin + 6)) < 1
        return rib_cage and not heart and abs(x) > 30 + margin

    def pattern(self, which: int, z: float) -> np.ndarray:
        """Return coarse unit noise [16, 16] that changes slowly from slice to slice."""
        turn = z * LUNG_HEIGHT / 25
        return np.cos(turn) * self.patterns[which, 0] + np.sin(turn) * self.patterns[which, 1]
