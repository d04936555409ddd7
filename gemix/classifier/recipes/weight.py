"""Synthetic images count less in the loss than real ones."""

from __future__ import annotations

import torch
from torch import Tensor

from gemix.classifier.recipes.mix import Mix


class Weight(Mix):
    """Show every image equally often, synthetic ones at ``classifier.synthetic_weight``."""

    def weights(self, rows: Tensor) -> Tensor:
        """See the interface."""
        is_real = rows < self.context.real
        return torch.where(is_real, 1.0, self.context.synthetic_weight)
