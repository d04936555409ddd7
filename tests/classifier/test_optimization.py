"""Optimization: the optimizer and its schedule, clipping, averaged weights, precision."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from gemix.classifier.bundle import Classifier
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.models import build
from gemix.classifier.optimizer import check_optimizer
from gemix.classifier.train import TrainingResult, train
from gemix.core.config_schema import InvalidConfig
from gemix.core.device import CompileError
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


@pytest.fixture
def steps_seen() -> Iterator[list[list[torch.Tensor]]]:
    """The weights after each step of any optimizer, in the optimizer's order."""
    seen: list[list[torch.Tensor]] = []

    def keep(optimizer: torch.optim.Optimizer, *_: object) -> None:
        weights = (weight for group in optimizer.param_groups for weight in group["params"])
        seen.append([weight.detach().clone() for weight in weights])

    handle = register_optimizer_step_post_hook(keep)
    yield seen
    handle.remove()


def test_averaged_weights_are_those_computed_by_hand(sets, one_step, steps_seen):
    """The decay of step t, from 1, is 1 - t^(-2/3), at most what was asked for; 0 at first."""
    config = dataclasses.replace(one_step, epoch_images=84, ema=0.5)
    found = train(*sets, config, accuracy)
    weights = build(found.spec).named_parameters()
    decays = [0.0, *(min(0.5, 1 - t ** (-2 / 3)) for t in range(2, 8))]
    assert len(steps_seen) == len(decays) and decays[1] < 0.5 == decays[-1]
    for index, (name, _) in enumerate(weights):
        average = torch.zeros_like(found.state[name])
        for decay, step in zip(decays, steps_seen, strict=True):
            average = decay * average + (1 - decay) * step[index]
        torch.testing.assert_close(found.state[name], average)
    assert not torch.equal(found.state[name], steps_seen[-1][index])


def test_averaged_weights_are_judged_and_saved_and_so_are_buffers(sets, quick):
    plain = train(*sets, quick, accuracy, keep="last")
    averaged = train(*sets, dataclasses.replace(quick, ema=0.9), accuracy, keep="last")
    rows = zip(plain.history, averaged.history, strict=True)
    assert all(
        one["train_loss"] == other["train_loss"] and one["val_loss"] != other["val_loss"]
        for one, other in rows
    )
    running = [name for name in plain.state if name.endswith("running_var")]
    assert running and not any(torch.equal(plain.state[n], averaged.state[n]) for n in running)
    counted = next(name for name in plain.state if name.endswith("num_batches_tracked"))
    assert torch.equal(plain.state[counted], averaged.state[counted])
    classifier = Classifier.of(
        averaged, classes=sets[1].classes, method="real", config=quick, training_digest="x"
    )
    logits = classifier.logits(sets[1].images)
    np.testing.assert_allclose(logits, averaged.validation_logits, rtol=1e-5, atol=1e-5)
    none = train(*sets, dataclasses.replace(quick, ema=0.0), accuracy, keep="last")
    assert all(torch.equal(none.state[name], plain.state[name]) for name in plain.state)


def test_smoothing_is_of_soft_targets_and_of_those_of_mixed_images(sets, quick):
    """The same as soft labels that are smoothed beforehand, since both are linear."""
    training, validation = sets
    smoothed = dataclasses.replace(training, soft_labels=0.7 * training.soft_labels + 0.1)
    mixed = dataclasses.replace(quick, model="test_convnext", augment="ct+mixup", epochs=2)
    given = train(smoothed, validation, mixed, accuracy).history[-1]
    plain = train(training, validation, mixed, accuracy).history[-1]
    config = dataclasses.replace(mixed, label_smoothing=0.3)
    asked = train(training, validation, config, accuracy).history[-1]
    for loss in ("train_loss", "val_loss"):
        assert asked[loss] == pytest.approx(given[loss], rel=1e-3)
        assert asked[loss] != pytest.approx(plain[loss], rel=3e-2)


def test_bfloat16_trains_to_about_the_same_loss(sets, quick):
    """Weights and validation stay in float32."""
    exact = train(*sets, quick, accuracy, keep="last")
    rounded = train(*sets, dataclasses.replace(quick, precision="bfloat16"), accuracy, keep="last")
    for name in ("train_loss", "val_loss"):
        last, other = (result.history[-1][name] for result in (exact, rounded))
        assert last != other and other == pytest.approx(last, abs=0.05)
    assert {v.dtype for v in rounded.state.values() if v.is_floating_point()} == {torch.float32}
    assert rounded.validation_logits.dtype == np.float32


def test_a_compiled_training_is_the_same_up_to_rounding(sets, one_step, start, monkeypatch):
    two = dataclasses.replace(one_step, epochs=2)
    eager = train(*sets, two, accuracy)
    compiled = train(*sets, dataclasses.replace(two, compile=True), accuracy)
    assert distance(compiled, eager) < 1e-3 * distance(eager, start)
    assert compiled.history[1]["train_loss"] == pytest.approx(eager.history[1]["train_loss"], 1e-4)

    def backend(*_, **__):
        raise OSError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    with pytest.raises(CompileError, match=r"no C\+\+ compiler.*set classifier\.compile=false"):
        train(*sets, dataclasses.replace(one_step, compile=True), accuracy)
    with pytest.raises(InvalidConfig, match=r"compile.*augment=none\+manifold-mixup"):
        dataclasses.replace(one_step, compile=True, augment="none+manifold-mixup")


@pytest.mark.parametrize("is_fast", [True, False])
def test_auto_is_what_the_hardware_is_fast_at(sets, one_step, monkeypatch, is_fast):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: is_fast)
    named = "bfloat16" if is_fast else "float32"
    losses = [
        train(*sets, dataclasses.replace(one_step, precision=name), accuracy).history
        for name in ("auto", named)
    ]
    assert losses[0] == losses[1]


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
        ClassifierConfig(
            clip_grad=0.0,
            warmup=1.5,
            ema=1.0,
            label_smoothing=1.0,
            precision="float16",
            early_stopping=0,
            balance="both",
        )
    names = ("clip_grad", "warmup", "ema", "label_smoothing", "precision", "early_stopping")
    assert all(f"{name}: given" in str(refused.value) for name in (*names, "balance"))
