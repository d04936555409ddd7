"""Recipes: which images a training shows when, and how much each counts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gemix.classifier.recipes.base import RecipeContext
from gemix.classifier.recipes.registry import RECIPES, build_recipe
from gemix.classifier.recipes.testing import RecipeContract
from gemix.classifier.train import train

CONTEXT = RecipeContext(seed=0, real=30, synthetic=20, batch=10, steps=40)


@pytest.mark.parametrize("name", RECIPES)
class TestEveryRecipe(RecipeContract):
    @pytest.fixture(autouse=True)
    def _choose(self, name):
        self.recipe = lambda context: build_recipe(name, context)


def shares(name: str, **changes) -> np.ndarray:
    """Return the share of synthetic images in each step."""
    context = dataclasses.replace(CONTEXT, **changes)
    recipe = build_recipe(name, context)
    return np.array(
        [
            np.mean([row >= context.real for row in recipe.rows(step, range(context.batch))])
            for step in range(context.steps)
        ]
    )


def test_mixing_shows_as_many_as_there_are():
    assert shares("mix").mean() == pytest.approx(0.4)
    assert shares("weight").mean() == pytest.approx(0.4)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_a_curriculum_falls_and_keeps_its_mean_share(share):
    found = shares("curriculum", synthetic_share=share)
    assert found.mean() == pytest.approx(share, abs=0.01)
    assert found[0] > 0.9 and found[-1] == pytest.approx(max(0.0, 2 * share - 1), abs=0.1)
    assert (np.diff(found) <= 0.1 + 1e-9).all()  # steps of one image


def test_pretraining_is_on_synthetic_images_alone_with_a_schedule_of_its_own():
    found = shares("pretrain", synthetic_share=0.25)
    assert found[:10].tolist() == [1.0] * 10 and found[10:].tolist() == [0.0] * 30
    context = dataclasses.replace(CONTEXT, synthetic_share=0.25)
    assert build_recipe("pretrain", context).restarts == (0, 10)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("kind", ["real", "synthetic"])
def test_images_of_one_kind_are_shown_as_ever(name, kind):
    context = dataclasses.replace(CONTEXT, **{kind: 0})
    recipe, mixed = build_recipe(name, context), build_recipe("mix", context)
    assert recipe.rows(5, range(10)) == mixed.rows(5, range(10))
    assert recipe.restarts == (0,)


def test_weights_change_what_is_learned(image_set, quick):
    """Half of the labels are wrong: with a small weight on those the rest is learned."""
    training, validation = image_set("train", 60), image_set("val", 30, seed=1)
    wrong = training.soft_labels.copy()
    wrong[30:] = np.roll(wrong[30:], 1, axis=1)
    training = dataclasses.replace(training, soft_labels=wrong)
    score = lambda labels, found: {"macro_f2": float((labels == found).mean())}  # noqa: E731
    small = dataclasses.replace(quick, recipe="weight", synthetic_weight=0.01)
    weighted = train(training, validation, small, score, real_images=30)
    mixed = train(training, validation, quick, score, real_images=30)
    assert weighted.kept["val_loss"] < mixed.kept["val_loss"] - 0.2


def test_the_learning_rate_of_a_pretraining_starts_anew(image_set, quick):
    training, validation = image_set("train", 60), image_set("val", 30, seed=1)
    score = lambda labels, found: {"macro_f2": float((labels == found).mean())}  # noqa: E731
    config = dataclasses.replace(quick, recipe="pretrain", epochs=4)
    rates = [
        row["lr"] for row in train(training, validation, config, score, real_images=30).history
    ]
    # after half of the first schedule, at the start of the second, after its half, at its end
    assert rates[0] == pytest.approx(rates[2]) and 0.4 < rates[0] / config.lr < 0.7
    assert rates[1] == config.lr and rates[3] < 0.01 * config.lr
