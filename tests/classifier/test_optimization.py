"""Optimization: the optimizer and its schedule, clipping, averaged weights, precision."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gemix.classifier.config import ClassifierConfig
from gemix.classifier.optimizer import check_optimizer
from gemix.classifier.train import TrainingResult, train
from gemix.core.errors import ConfigError
from gemix.data.image_set import ImageSet


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """A score in the place of macro-F2."""
    return {"macro_f2": float((labels == predictions).mean())}


@pytest.fixture(scope="module")
def sets(image_set) -> tuple[ImageSet, ImageSet]:
    return image_set("train", 60), image_set("val", 30, seed=1)


@pytest.fixture(scope="module")
def one_step() -> ClassifierConfig:
    """One step of gradient descent with momentum: along the gradient, times the learning rate."""
    return ClassifierConfig(
        model="test_convnext",
        epochs=1,
        batch=12,
        epoch_images=12,
        lr=0.1,
        optimizer="momentum",
        weight_decay=0.0,
    )


@pytest.fixture(scope="module")
def start(sets, one_step) -> TrainingResult:
    return train(*sets, dataclasses.replace(one_step, lr=1e-8), accuracy)


def distance(first: TrainingResult, second: TrainingResult) -> float:
    """Euclidean distance of the weights."""
    squares = ((first.state[n] - second.state[n]).double().square().sum() for n in first.state)
    return float(sum(squares)) ** 0.5


def test_a_clipped_gradient_has_the_norm_that_was_asked_for(sets, one_step, start):
    free = train(*sets, one_step, accuracy)
    norm = distance(free, start) / one_step.lr
    half = train(*sets, dataclasses.replace(one_step, clip_grad=norm / 2), accuracy)
    assert distance(half, start) == pytest.approx(distance(free, start) / 2, rel=1e-4)
    wide = train(*sets, dataclasses.replace(one_step, clip_grad=2 * norm), accuracy)
    assert all(torch.equal(wide.state[name], free.state[name]) for name in free.state)


def test_it_is_the_whole_gradient_of_a_batch_in_parts_that_is_clipped(sets, one_step, start):
    """Not that of each part: the norm of a sum is less than the sum of norms."""
    clipped = dataclasses.replace(one_step, clip_grad=0.5)
    whole = train(*sets, clipped, accuracy)
    parts = train(*sets, dataclasses.replace(clipped, accumulate=6), accuracy)
    assert distance(parts, whole) < 1e-3 * distance(whole, start)


def test_the_optimizer_is_the_one_that_is_named(sets, one_step, start):
    """The first step of Lion has the size of the learning rate in every weight."""
    lion = train(*sets, dataclasses.replace(one_step, optimizer="lion", lr=1e-3), accuracy)
    steps = torch.cat([(lion.state[n] - start.state[n]).flatten() for n in lion.state]).abs()
    moved = steps[steps > 1e-4]
    assert len(moved) > 0.9 * len(steps)
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-3), rtol=1e-2, atol=0)


@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.5])
def test_the_learning_rate_rises_for_the_share_that_is_asked_for(sets, one_step, warmup):
    config = dataclasses.replace(one_step, epochs=8, warmup=warmup)
    rates = [row["lr"] for row in train(*sets, config, accuracy).history]
    # each is the rate of the step after the epoch's only one; the cosine begins with a 1 too
    highest = [epoch for epoch, rate in enumerate(rates, start=1) if rate == config.lr]
    assert highest[-1] == max(1, round(8 * warmup))
    assert rates[-1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("adamv", "did you mean .*adam"), ("adahessian", "no first-order"), ("", "timm has no")],
)
def test_an_optimizer_that_cannot_be_used_is_refused(name, hint):
    with pytest.raises(ConfigError, match=f"classifier.optimizer {name!r}.*{hint}"):
        check_optimizer(name)


def test_an_optimizer_that_lacks_its_package_says_so(sets, one_step):
    with pytest.raises(ConfigError, match=r"optimizer 'fusedadamw': .*APEX.*choose another one"):
        train(*sets, dataclasses.replace(one_step, optimizer="fusedadamw"), accuracy)


def test_settings_out_of_range_are_refused_all_at_once():
    with pytest.raises(ConfigError) as refused:
        ClassifierConfig(clip_grad=0.0, warmup=1.5)
    assert all(f"{name}: given" in str(refused.value) for name in ("clip_grad", "warmup"))
