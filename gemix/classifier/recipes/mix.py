"""Real and synthetic images as one set: what the source paper does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from gemix.classifier.recipes.base import RecipeContext
from gemix.core.rng import Stream


class Mix:
    """Show every image, or every class, equally often (interface: `Recipe`)."""

    restarts = (0,)

    def __init__(self, context: RecipeContext):
        self.context = context
        count = context.real + context.synthetic
        self._pool = context.pool(Stream.CLASSIFIER_ORDER, 0, count)

    @staticmethod
    def real_share(context: RecipeContext) -> float:
        """See the interface."""
        if context.labels is None:
            return context.real / (context.real + context.synthetic)
        is_real = np.arange(len(context.labels)) < context.real
        shares = [is_real[context.labels == one].mean() for one in np.unique(context.labels)]
        return float(np.mean(shares))

    def rows(self, step: int, batch_indices: Sequence[int]) -> list[int]:
        """See the interface; batches run across the ends of passes, so that none is short."""
        return [self._pool.row(step * self.context.batch + index) for index in batch_indices]

    def weights(self, rows: Tensor) -> Tensor | None:
        """See the interface; all are equal."""
