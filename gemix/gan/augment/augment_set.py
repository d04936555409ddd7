"""Which augmentations a set has and how strong they are, and what is drawn for a batch."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentSet:
    """How strong each transformation is; 0 leaves it out.

    Translations are in image widths, rotations in half turns, `scale`, `aniso`, `contrast` and
    `saturation` are standard deviations of a base-2 logarithm, `brightness` one of the image in
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
    def moves(self) -> bool:
        """Whether anything in it moves pixels."""
        return any(
            (self.xflip, self.rotate90, self.xint, self.scale, self.rotate, self.aniso, self.xfrac)
        )

    @property
    def recolours(self) -> bool:
        """Whether anything in it changes values."""
        return any((self.brightness, self.contrast, self.lumaflip, self.hue, self.saturation))


@dataclasses.dataclass(frozen=True)
class Draws:
    """Random numbers of N samples: which transformations apply, and how much.

    Attributes:
        p: probability of each transformation, float64 [1].
        gate: bool [N, 12].
        uniform: float64 [N, 12] in [0, 1).
        normal: float64 [N, 8].
    """

    p: Tensor
    gate: Tensor
    uniform: Tensor
    normal: Tensor

    def chosen(self, column: int, value: Tensor, neutral: float = 0.0) -> Tensor:
        """`value` [N] where the transformation of this column applies, else `neutral`."""
        return torch.where(self.gate[:, column], value, neutral)
