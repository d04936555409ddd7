"""Grey levels from 0 to 1 of normalized images, which operations on pictures need."""

from __future__ import annotations

import dataclasses
from typing import Self

from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class GreyLevels:
    """Images as grey levels between the darkest and the brightest pixel of each.

    Attributes:
        values: from 0 to 1, float32 [n, C, H, W].
        low: what 0 stands for, [n, 1, 1, 1].
        scale: what 1 stands for beyond `low`, above 0, [n, 1, 1, 1].
    """

    values: Tensor
    low: Tensor
    scale: Tensor

    @classmethod
    def of(cls, images: Tensor) -> Self:
        """Return the grey levels of normalized images, float32 [n, C, H, W]."""
        low = images.amin(dim=(1, 2, 3), keepdim=True)
        scale = (images.amax(dim=(1, 2, 3), keepdim=True) - low).clamp_min(1e-6)
        return cls(values=(images - low) / scale, low=low, scale=scale)

    def restored(self, values: Tensor) -> Tensor:
        """Return what other levels of these images, [n, C, H, W], are as normalized images."""
        return values * self.scale + self.low
