"""Synthetic images alone, then real images alone."""

from __future__ import annotations

import numpy as np

from gemix.classifier.recipes.base import RecipeContext, SharedBatches


class Pretrain(SharedBatches):
    """Train on synthetic images, then fine-tune on real ones with a schedule of its own.

    The first stage takes ``classifier.synthetic_share`` of the steps.
    """

    def __init__(self, context: RecipeContext):
        begin = round(context.synthetic_share * context.steps)
        super().__init__(context, (np.arange(context.steps) < begin).astype(np.float64))
        self.restarts = (0, begin) if 0 < begin < context.steps else (0,)
