"""Synthetic images count less in the loss than real ones."""

from __future__ import annotations

import torch
from torch import Tensor

from gemix.classifier.recipes.mix import Mix


class Weight(Mix):
    """Show images as `Mix` does, synthetic ones at ``classifier.synthetic_weight``."""

    def weights(self, rows: Tensor) -> Tensor:
        """See the interface."""
        real, synthetic = self.context.real, self.context.synthetic
        weight = self.context.synthetic_weight
        mean = (real + weight * synthetic) / (real + synthetic)
        return torch.where(rows < real, 1 / mean, weight / mean)
