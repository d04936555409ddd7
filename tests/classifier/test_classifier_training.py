"""Training: it learns, it repeats itself, it keeps the best epoch, workers agree."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from gemix.classifier.bundle import Classifier
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.distributed import batch_parts, keep_statistics_pace
from gemix.classifier.train import TrainingResult, train
from gemix.classifier.trainer import Scorer
from gemix.core.distributed import Workers
from gemix.core.errors import ConfigError, DataError, GemixError
from gemix.data.image_set import ImageSet
from tests.processes import FORKSERVER


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """A score in the place of macro-F2."""
    return {"macro_f2": float((labels == predictions).mean())}


@pytest.fixture(scope="module")
def sets(image_set) -> tuple[ImageSet, ImageSet]:
    return image_set("train", 60), image_set("val", 30, seed=1)


@pytest.fixture(scope="module")
def trained(sets, quick) -> TrainingResult:
    return train(*sets, quick, accuracy)


def same(first: TrainingResult, second: TrainingResult) -> bool:
    return all(torch.equal(value, second.state[name]) for name, value in first.state.items())


def test_it_learns_to_tell_the_classes_apart(trained):
    assert trained.kept["val_macro_f2"] > 0.9
    assert trained.history[-1]["train_loss"] < 0.5 * trained.history[0]["train_loss"]


def test_the_best_epoch_is_kept_ties_by_loss(sets, quick):
    scores = iter([0.5, 0.9, 0.9, 0.2])
    rows: list[dict] = []
    found = train(
        *sets, quick, lambda labels, predictions: {"macro_f2": next(scores)}, on_epoch=rows.append
    )
    tied = min(rows[1:3], key=lambda row: row["val_loss"])
    assert found.kept == tied
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert found.history == rows


def scripted(*values: float) -> Scorer:
    """A score that has these values, one an epoch."""
    left = iter(values)
    return lambda labels, predictions: {"macro_f2": next(left)}


def test_training_stops_when_it_no_longer_gets_better_and_keeps_the_best_epoch(sets, quick):
    """As long as it runs it is the training that would have gone on."""
    patient = dataclasses.replace(quick, epochs=8, epoch_images=24, early_stopping=2)
    rows: list[dict] = []
    found = train(*sets, patient, scripted(0.3, 0.2, 0.8, 0.5, 0.1), on_epoch=rows.append)
    assert [row["epoch"] for row in found.history] == [1, 2, 3, 4, 5] and rows == found.history
    assert found.kept == found.history[2] and found.steps == 5 * 2
    whole = train(
        *sets,
        dataclasses.replace(patient, early_stopping=None),
        scripted(0.3, 0.2, 0.8, 0.5, 0.1, *[0.0] * 3),
    )
    assert whole.history[:5] == found.history and len(whole.history) == 8
    assert same(whole, found)


def test_a_training_that_gets_better_does_not_stop(sets, quick):
    impatient = dataclasses.replace(quick, early_stopping=1)
    found = train(*sets, impatient, scripted(0.1, 0.2, 0.3, 0.4))
    assert len(found.history) == 4 and found.kept["epoch"] == 4


def test_stopping_early_is_refused_where_it_would_mislead(sets, quick):
    with pytest.raises(ConfigError, match=r'early_stopping 3 .*keep="last"'):
        train(*sets, dataclasses.replace(quick, early_stopping=3), accuracy, keep="last")
    for recipe in ("curriculum", "pretrain"):
        with pytest.raises(ConfigError, match=f"early_stopping: given 3, .*recipe={recipe}"):
            dataclasses.replace(quick, early_stopping=3, recipe=recipe)


def test_the_kept_weights_are_those_of_the_best_epoch(sets, quick):
    first_is_best = iter([0.9, 0.1, 0.1, 0.1])
    found = train(*sets, quick, lambda labels, predictions: {"macro_f2": next(first_is_best)})
    classifier = Classifier.of(
        found, classes=sets[1].classes, method="real", config=quick, training_digest="x"
    )
    probabilities = classifier.predict(sets[1].images)
    chosen = probabilities[np.arange(len(sets[1])), sets[1].labels]
    np.testing.assert_array_equal(found.predicted, probabilities.argmax(axis=1))
    assert found.kept is found.history[0]
    assert -np.log(chosen).mean() == pytest.approx(found.history[0]["val_loss"], rel=1e-5)
    assert found.history[0]["val_loss"] != pytest.approx(found.history[-1]["val_loss"], rel=0.01)


def test_the_same_seed_gives_the_same_weights_whatever_went_before(sets, quick, trained):
    torch.manual_seed(1234)
    torch.rand(3)
    before = torch.get_rng_state()
    assert same(trained, train(*sets, quick, accuracy))
    assert torch.equal(before, torch.get_rng_state())
    assert not same(trained, train(*sets, dataclasses.replace(quick, seed=1), accuracy))


def test_epoch_images_fixes_the_steps_of_a_larger_set(sets, image_set, quick):
    rates = []
    for training in (sets[0], image_set("more", 120, seed=2)):
        rows = train(training, sets[1], quick, accuracy).history
        rates.append([row["lr"] for row in rows])
    assert rates[0] == rates[1]
    short = dataclasses.replace(quick, epoch_images=None, epochs=1)
    assert len(train(sets[0], sets[1], short, accuracy).history) == 1


def test_soft_labels_are_the_targets(sets, quick):
    """Images labelled half and half leave the classifier undecided between the two."""
    training, validation = sets
    blurred = training.soft_labels.copy()
    blurred[training.labels == 2] = [0, 0.5, 0.5]
    blurred[training.labels == 1] = [0, 0.5, 0.5]
    soft = dataclasses.replace(training, soft_labels=blurred)
    found = train(soft, validation, dataclasses.replace(quick, epochs=6), accuracy)
    assert found.history[-1]["train_loss"] == pytest.approx(2 / 3 * np.log(2), abs=0.12)


def test_sets_that_cannot_judge_are_refused(sets, image_set, quick):
    training, validation = sets
    with pytest.raises(DataError, match="both in training and held out, 'train-0'"):
        train(
            training, dataclasses.replace(validation, groups=training.groups[:30]), quick, accuracy
        )
    with pytest.raises(DataError, match=r"1 x 32 x 32 pixels, held-out.*3 x 32 x 32"):
        train(training, image_set("v", 9, channels=3), quick, accuracy)
    with pytest.raises(DataError, match="classes"):
        other = dataclasses.replace(validation, classes=("a", "b", "c"))
        train(training, other, quick, accuracy)


def test_a_loss_that_is_no_number_is_reported(sets, quick):
    broken = dataclasses.replace(sets[0], soft_labels=np.full((60, 3), np.inf, np.float32))
    with pytest.raises(GemixError, match=r"lower classifier\.lr"):
        train(broken, sets[1], quick, accuracy)


def worker(
    rank: int, meet: str, sets: tuple, config: ClassifierConfig, scores: tuple[float, ...] = ()
) -> tuple[TrainingResult, list]:
    """Train as one of two workers; `scores` take the place of those that it would find."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    rows: list[dict] = []
    try:
        score = scripted(*scores) if scores else accuracy
        return train(*sets, config, score, on_epoch=rows.append), rows
    finally:
        dist.destroy_process_group()


def two_workers(
    sets: tuple, config: ClassifierConfig, folder: Path, scores: tuple = ((), ())
) -> list:
    """Return what :func:`worker` returns on both, which may find scores of their own."""
    meet = str(folder / "meet")
    with ProcessPoolExecutor(2, FORKSERVER) as pool:
        futures = [pool.submit(worker, rank, meet, sets, config, scores[rank]) for rank in range(2)]
        return [future.result(timeout=120) for future in futures]


@pytest.mark.slow
def test_two_workers_return_the_same_and_learn_the_same(sets, quick, trained, tmp_path):
    (first, rows), (second, other) = two_workers(sets, quick, tmp_path)
    assert same(first, second)
    assert rows == other == first.history
    assert list(first.state) == list(trained.state)
    assert first.kept["val_macro_f2"] > 0.9


@pytest.fixture(scope="module")
def unnormalized(quick) -> ClassifierConfig:
    """A few steps of a network without batch statistics."""
    return dataclasses.replace(quick, model="test_convnext", epochs=1, epoch_images=36)


@pytest.fixture(scope="module")
def whole(sets, unnormalized) -> TrainingResult:
    return train(*sets, unnormalized, accuracy)


def assert_trained_alike(found: TrainingResult, whole: TrainingResult, start: dict) -> None:
    """Up to rounding; Adam takes a whole step for a gradient of any size, also one near 0."""
    error, way = (
        sum(float((whole.state[name] - other[name]).square().sum()) for name in other) ** 0.5
        for other in (found.state, start)
    )
    assert error < 1e-3 * way
    assert found.kept["train_loss"] == pytest.approx(whole.kept["train_loss"], rel=1e-4)
    assert found.kept["val_loss"] == pytest.approx(whole.kept["val_loss"], rel=1e-3)


@pytest.fixture(scope="module")
def start(sets, unnormalized) -> dict[str, torch.Tensor]:
    standing = dataclasses.replace(unnormalized, lr=1e-8, weight_decay=0.0)
    return train(*sets, standing, accuracy).state


@pytest.mark.parametrize("accumulate", [2, 6])
def test_a_batch_in_parts_trains_as_a_whole_one(sets, unnormalized, whole, start, accumulate):
    parts = dataclasses.replace(unnormalized, accumulate=accumulate)
    assert_trained_alike(train(*sets, parts, accuracy), whole, start)


@pytest.mark.slow
def test_two_workers_with_parts_train_as_one_without(sets, unnormalized, whole, start, tmp_path):
    first, second = two_workers(sets, dataclasses.replace(unnormalized, accumulate=3), tmp_path)
    assert same(first[0], second[0])
    assert_trained_alike(first[0], whole, start)


@pytest.mark.slow
def test_two_workers_mix_features_as_one_in_two_parts(sets, unnormalized, start, tmp_path):
    """Images of a part are mixed with each other, at one layer in all parts of a step."""
    mixing = dataclasses.replace(unnormalized, augment="ct+manifold-mixup")
    first, second = two_workers(sets, mixing, tmp_path)
    assert same(first[0], second[0])
    in_parts = train(*sets, dataclasses.replace(mixing, accumulate=2), accuracy)
    assert_trained_alike(first[0], in_parts, start)


@pytest.mark.slow
def test_two_workers_take_every_option_as_one_does(sets, unnormalized, start, tmp_path):
    """They average, clip and balance as one, and stop together when the first of them says so."""
    config = dataclasses.replace(
        unnormalized,
        epochs=5,
        early_stopping=1,
        ema=0.6,
        clip_grad=0.1,
        label_smoothing=0.1,
        balance="sampler",
        lr=0.1,
        optimizer="momentum",
    )
    scores = (0.5, 0.6, 0.4), (0.1, 0.2, 0.3, 0.4, 0.5)
    whole = train(*sets, config, scripted(*scores[0]))
    parts = dataclasses.replace(config, accumulate=3)
    (first, rows), (_, other) = two_workers(sets, parts, tmp_path, scores)
    assert len(rows) == len(other) == len(whole.history) == 3
    assert first.kept["epoch"] == whole.kept["epoch"] == 2
    assert_trained_alike(first, whole, start)


def test_running_batch_statistics_keep_their_pace_in_parts():
    images = torch.randn(8, 3, 4, 4)
    once, in_parts = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    keep_statistics_pace(in_parts, 4)
    once(images)
    for _ in range(4):
        in_parts(images)
    torch.testing.assert_close(in_parts.running_mean, once.running_mean)
    torch.testing.assert_close(in_parts.running_var, once.running_var)


def test_the_parts_are_those_of_as_many_workers():
    of_two = [part for rank in range(2) for part in batch_parts(Workers(rank, 2), 12, 3)]
    assert of_two == [batch_parts(Workers(rank, 6), 12)[0] for rank in range(6)]
    assert sorted(index for part in of_two for index in part) == list(range(12))


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ConfigError, match=r"5 cannot be shared.*multiple of 2 from 4 on"):
        batch_parts(Workers(0, 2), 5)
    with pytest.raises(ConfigError, match=r"12 .* 2 workers in 4 parts each; .* multiple of 8 "):
        batch_parts(Workers(0, 2), 12, 4)
    with pytest.raises(ConfigError, match=r"from 24 on, .*classifier\.accumulate"):
        batch_parts(Workers(), 12, 12)
