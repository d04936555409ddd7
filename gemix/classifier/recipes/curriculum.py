"""Synthetic images first, fewer and fewer of them, real ones alone in the end."""

from __future__ import annotations

import numpy as np

from gemix.classifier.recipes.base import RecipeContext, SharedBatches


class Curriculum(SharedBatches):
    """Let the share of synthetic images fall linearly from 1 to 0.

    It reaches 0 at twice ``classifier.synthetic_share`` of the steps, so that this is the mean
    share; a share above 0.5 starts at 1 and ends above 0.
    """

    def __init__(self, context: RecipeContext):
        done = (np.arange(context.steps) + 0.5) / context.steps
        share = context.synthetic_share
        falls = 1 - done / (2 * share) if share <= 0.5 else 1 - 2 * (1 - share) * done
        super().__init__(context, np.maximum(falls, 0.0))
