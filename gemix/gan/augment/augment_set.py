"""Strengths of augmentations, and the random numbers drawn for a batch."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentSet:
    """Strength of each transformation; 0 disables it.

    Translations are in image widths, rotations in half turns. `scale`, `aniso`, `contrast` and
    `saturation` are standard deviations of a base-2 logarithm, `brightness` one of pixel values in
    -1 to 1.
    """

    xflip: float = 0.0
    rotate90: float = 0.0
    xint: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    aniso: float = 0.0
    xfrac: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    lumaflip: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0

    @property
    def has_geometric(self) -> bool:
        """Return whether any geometric transformation is enabled."""
        return any(
            (self.xflip, self.rotate90, self.xint, self.scale, self.rotate, self.aniso, self.xfrac)
        )

    @property
    def has_color(self) -> bool:
        """Return whether any color transformation is enabled."""
        return any((self.brightness, self.contrast, self.lumaflip, self.hue, self.saturation))


@dataclasses.dataclass(frozen=True)
class Draws:
    """Random numbers of N samples.

    Attributes:
        p: probability of each transformation, float64 [1].
        applied: which transformations apply, bool [N, 12].
        uniform: float64 [N, 12] in [0, 1).
        normal: float64 [N, 8].
    """

    p: Tensor
    applied: Tensor
    uniform: Tensor
    normal: Tensor

    def gate(self, column: int, value: Tensor, neutral: float = 0.0) -> Tensor:
        """Return `value` [N] where the transformation of this column applies, else `neutral`."""
        return torch.where(self.applied[:, column], value, neutral)
