"""Recipes: which images a training shows when, and how much each counts."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from gemix.classifier.bundle import Classifier
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.recipes.base import Recipe, RecipeContext
from gemix.classifier.recipes.mix import Mix
from gemix.classifier.recipes.registry import RECIPES, build_recipe
from gemix.classifier.recipes.testing import RecipeContract
from gemix.classifier.train import train
from gemix.core.errors import DataError
from gemix.data.image_set import ImageSet

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


UNEVEN = np.repeat([0, 1, 2, 0, 2], [24, 4, 2, 10, 10])  # 30 real images, 20 synthetic ones


@pytest.fixture(params=RECIPES)
def balanced(request) -> tuple[Recipe, RecipeContext]:
    context = dataclasses.replace(CONTEXT, labels=UNEVEN, steps=120)
    return build_recipe(request.param, context), context


def test_balanced_classes_are_shown_equally_often(balanced):
    """Among real and among synthetic images, or among both where a recipe mixes them."""
    recipe, context = balanced
    shown = [row for step in range(context.steps) for row in recipe.rows(step, range(10))]
    kinds = [range(50)] if isinstance(recipe, Mix) else [range(30), range(30, 50)]
    for kind in kinds:
        counts = Counter(int(UNEVEN[row]) for row in shown if row in kind)
        assert set(counts) == set(UNEVEN[list(kind)]) and max(counts.values()) >= 200
        assert max(counts.values()) - min(counts.values()) <= 1
    images = Counter(shown)
    for label in range(3):  # no image of a class is left out or favoured
        for kind in kinds:
            times = [images[row] for row in kind if UNEVEN[row] == label]
            assert not times or max(times) - min(times) <= 1 <= min(times)


def test_balanced_batches_are_shared_out_as_others_are(balanced):
    recipe, context = balanced
    whole = recipe.rows(7, range(10))
    recipe.rows(30, range(10))
    again = type(recipe)(context)
    assert again.rows(7, range(1, 10, 2)) == whole[1::2]
    other = type(recipe)(dataclasses.replace(context, seed=4))
    assert other.rows(7, range(10)) != whole


def test_the_share_of_real_images_is_that_of_balanced_classes(balanced):
    recipe, context = balanced
    rows = [row for step in range(context.steps) for row in recipe.rows(step, range(10))]
    shown = np.mean([row < context.real for row in rows])
    assert recipe.real_share(context) == pytest.approx(shown, abs=0.01)


def uneven(image_set) -> ImageSet:
    """A set of 6, 20 and 20 images."""
    whole = image_set("train", 60)
    rows = np.flatnonzero((whole.labels != 1) | (np.arange(60) < 18))
    return dataclasses.replace(
        whole,
        images=whole.images[rows],
        labels=whole.labels[rows],
        soft_labels=whole.soft_labels[rows],
        groups=tuple(whole.groups[row] for row in rows),
        sources=tuple(whole.sources[row] for row in rows),
    )


def test_classes_weigh_alike_in_the_loss(image_set):
    """One step at almost no learning rate: the loss is that of the weights that are kept."""
    training, score = uneven(image_set), lambda *_: {"macro_f2": 0.0}
    config = ClassifierConfig(
        model="test_convnext",
        epochs=1,
        batch=46,
        lr=1e-8,
        augment="none",
        balance="loss",
        label_smoothing=0.3,
        recipe="weight",
        synthetic_weight=0.25,
    )
    found = train(training, image_set("val", 9, seed=1), config, score, real_images=36)
    classifier = Classifier.of(
        found, classes=training.classes, method="x", config=config, training_digest="x"
    )
    counts = np.array([(training.labels[:36] == label).sum() for label in range(3)])
    class_weights = 36 / (3 * counts)
    assert class_weights.max() > 2 * class_weights.min()
    row_weights = np.where(np.arange(46) < 36, 1.0, 0.25)
    log_p = torch.from_numpy(classifier.logits(training.images)).log_softmax(dim=1).numpy()
    targets = 0.7 * training.soft_labels + 0.1
    losses = -(class_weights * targets * log_p).sum(axis=1) * row_weights / row_weights.mean()
    assert found.history[0]["train_loss"] == pytest.approx(losses.mean(), rel=1e-4)


def test_a_class_without_real_images_has_no_weight(image_set, quick):
    training, score = image_set("train", 60), lambda *_: {"macro_f2": 0.0}
    rare = dataclasses.replace(training, labels=np.where(training.labels == 1, 0, training.labels))
    config = dataclasses.replace(quick, balance="loss")
    with pytest.raises(DataError, match="balance=loss: no training image of class 'left'"):
        train(rare, image_set("val", 9, seed=1), config, score)


def test_a_training_shows_what_the_sampler_balances(image_set):
    """At almost no learning rate its loss is the mean over classes of their mean losses."""
    training, score = uneven(image_set), lambda *_: {"macro_f2": 0.0}
    config = ClassifierConfig(
        model="test_convnext",
        epochs=1,
        epoch_images=180,  # all images of a class equally often: 60 = 10 x 6 = 3 x 20
        batch=12,
        lr=1e-8,
        augment="none",
        balance="sampler",
    )
    found = train(training, image_set("val", 9, seed=1), config, score)
    classifier = Classifier.of(
        found, classes=training.classes, method="x", config=config, training_digest="x"
    )
    log_p = torch.from_numpy(classifier.logits(training.images)).log_softmax(dim=1).numpy()
    losses = -log_p[np.arange(46), training.labels]
    balanced_loss = np.mean([losses[training.labels == label].mean() for label in range(3)])
    assert found.history[0]["train_loss"] == pytest.approx(balanced_loss, rel=1e-5)
    assert losses.mean() != pytest.approx(balanced_loss, rel=1e-3)
