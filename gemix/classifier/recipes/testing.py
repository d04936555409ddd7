"""The contract of a recipe, as a test class to subclass (pytest collects it)::

class TestMyRecipe(RecipeContract):
    recipe = MyRecipe
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable

import torch

from gemix.classifier.recipes.base import Recipe, RecipeContext


class RecipeContract:
    """Contract of a recipe; subclass it and set `recipe`.

    Attributes:
        recipe: builds the recipe under test.
    """

    recipe: Callable[[RecipeContext], Recipe]

    def context(self, seed: int = 3) -> RecipeContext:
        """Return the context of a training of 30 real and 20 synthetic images."""
        return RecipeContext(
            seed=seed,
            real=30,
            synthetic=20,
            batch=8,
            steps=40,
            synthetic_weight=0.5,
            synthetic_share=0.5,
        )

    def all_rows(self, context: RecipeContext) -> list[int]:
        """Return the rows that a whole training shows."""
        recipe = self.recipe(context)
        steps = range(context.steps)
        return [row for step in steps for row in recipe.rows(step, range(context.batch))]

    def test_rows_are_of_the_training_set(self) -> None:
        """Every place of every batch has a row, and images of both kinds are shown."""
        context = self.context()
        rows = self.all_rows(context)
        assert len(rows) == context.batch * context.steps
        assert set(rows) == set(range(context.real + context.synthetic))

    def test_images_of_a_kind_are_shown_equally_often(self) -> None:
        """No image is shown twice as often as another one of its kind."""
        context = self.context()
        counts = Counter(self.all_rows(context))
        for kind in (range(context.real), range(context.real, context.real + context.synthetic)):
            shown = [counts[row] for row in kind]
            assert max(shown) - min(shown) <= 1 or max(shown) < 2 * min(shown)

    def test_the_share_of_real_images_is_what_is_shown(self) -> None:
        """Up to rounding to whole images and steps."""
        context = self.context()
        shown = [row < context.real for row in self.all_rows(context)]
        assert abs(sum(shown) / len(shown) - self.recipe(context).real_share(context)) < 0.02

    def test_rows_follow_seed_step_and_index_alone(self) -> None:
        """A step repeats exactly, in any order and however a batch is split among workers."""
        context = self.context()
        recipe, again = self.recipe(context), self.recipe(context)
        whole = recipe.rows(7, range(8))
        recipe.rows(30, range(8))
        assert again.rows(7, range(1, 8, 2)) == whole[1::2]
        assert recipe.rows(7, range(8)) == whole
        other = self.recipe(dataclasses.replace(context, seed=4))
        assert other.rows(7, range(8)) != whole

    def test_weights_are_of_real_and_of_synthetic_images(self) -> None:
        """Weights are positive, one number for each kind, 1 on average."""
        context = self.context()
        weights = self.recipe(context).weights(torch.arange(50))
        if weights is not None:
            assert weights.shape == (50,) and (weights > 0).all()
            assert len(set(weights[: context.real].tolist())) == 1
            assert len(set(weights[context.real :].tolist())) == 1
            assert abs(weights.mean().item() - 1) < 1e-6

    def test_schedules_restart_within_the_training(self) -> None:
        """The first schedule begins at step 0, later ones before the end."""
        context = self.context()
        restarts = self.recipe(context).restarts
        assert restarts[0] == 0 and list(restarts) == sorted(set(restarts))
        assert restarts[-1] < context.steps
