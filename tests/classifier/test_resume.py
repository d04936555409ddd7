"""An interrupted training: it goes on from its checkpoint and ends as an undisturbed one."""

from __future__ import annotations

import dataclasses
import functools
import logging
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed as dist

from gemix.classifier import trainer as trainer_module
from gemix.classifier.bundle import MODEL, WEIGHTS, Classifier
from gemix.classifier.checkpoint import CHECKPOINT, Checkpoints
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.models import build
from gemix.classifier.train import TrainingResult, train
from gemix.classifier.trainer import Scorer
from gemix.data.image_set import ImageSet
from gemix.io.storage import Store
from gemix.steps.runtime import classifier_training
from gemix.steps.runtime.classifier_training import train_into
from tests.processes import FORKSERVER


class Interrupted(Exception):
    """The end of a worker, say."""


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """A score in the place of macro-F2."""
    return {"macro_f2": float((labels == predictions).mean())}


def scripted(*values: float) -> Scorer:
    """A score that has these values, one an epoch."""
    left = iter(values)
    return lambda labels, predictions: {"macro_f2": next(left)}


def interrupt(
    sets: tuple,
    config: ClassifierConfig,
    checkpoints: Checkpoints,
    epoch: int,
    score: Scorer = accuracy,
    **options: str,
) -> None:
    """Train until the end of an epoch, whose checkpoint is not written any more."""

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == epoch:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(*sets, config, score, on_epoch=stop, checkpoints=checkpoints, **options)


def assert_equal(found: TrainingResult, expected: TrainingResult) -> None:
    assert found.history == expected.history and found.kept == expected.kept
    assert found.steps == expected.steps and list(found.state) == list(expected.state)
    for name, value in expected.state.items():
        assert torch.equal(found.state[name], value), name
    np.testing.assert_array_equal(found.validation_logits, expected.validation_logits)


@pytest.fixture(scope="module")
def sets(image_set) -> tuple[ImageSet, ImageSet]:
    return image_set("train", 60), image_set("val", 30, seed=1)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "classifier")


OPTIONS = {
    "as by default": {},
    "averaged weights": {"epochs": 3, "ema": 0.9, "clip_grad": 0.5, "accumulate": 2},
    "other optimizer": {"optimizer": "adan", "balance": "sampler", "augment": "ct+mixup"},
    "bfloat16": {"optimizer": "adafactorbv", "precision": "bfloat16"},
}


@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_it_ends_as_an_undisturbed_one(sets, quick, store, monkeypatch, changes):
    """With dropout, which draws from a generator of torch's."""

    def with_dropout(*args, **options):
        network = build(*args, **options)
        network.drop_rate = 0.5
        return network

    monkeypatch.setattr(trainer_module, "build", with_dropout)
    config = dataclasses.replace(quick, epoch_images=24, **changes)
    expected = train(*sets, config, accuracy)
    interrupt(sets, config, Checkpoints(store, "a", seconds=0), epoch=3)
    rows: list[dict] = []
    again = Checkpoints(store, "a", seconds=0)
    found = train(*sets, config, accuracy, on_epoch=rows.append, checkpoints=again)
    assert_equal(found, expected)
    assert rows == expected.history[2:]


def test_it_may_be_interrupted_again_and_at_its_end(sets, quick, store):
    config = dataclasses.replace(quick, epoch_images=24)
    for epoch in (2, 3, 4):
        interrupt(sets, config, Checkpoints(store, "a", seconds=0), epoch, keep="last")
    checkpoints = Checkpoints(store, "a", seconds=0)
    found = train(*sets, config, accuracy, checkpoints=checkpoints, keep="last")
    assert_equal(found, train(*sets, config, accuracy, keep="last"))


def test_it_stops_early_at_the_same_epoch(sets, quick, store):
    """Epochs before the interruption count."""
    config = dataclasses.replace(quick, epochs=9, epoch_images=24, early_stopping=2)
    expected = train(*sets, config, scripted(0.5, 0.8, 0.3, 0.2))
    assert len(expected.history) == 4
    checkpoints = Checkpoints(store, "a", seconds=0)
    interrupt(sets, config, checkpoints, 4, scripted(0.5, 0.8, 0.3, 0.2))
    assert_equal(train(*sets, config, scripted(0.2), checkpoints=checkpoints), expected)


def test_a_checkpoint_that_is_no_help_is_passed_over(sets, quick, store, caplog):
    config = dataclasses.replace(quick, epoch_images=24)
    interrupt(sets, config, Checkpoints(store, "a", seconds=0), epoch=2)
    whole = store.read_bytes(CHECKPOINT)
    with safetensors.safe_open(store.path(CHECKPOINT), "pt") as file:
        about = file.metadata()
    tensors = safetensors.torch.load(whole)
    bad = {
        "other settings": (whole, "b"),
        "another format": (safetensors.torch.save(tensors, about | {"version": "99"}), "a"),
        "damaged": (whole[: len(whole) // 2], "a"),
        "is damaged": (safetensors.torch.save({"0": tensors["0"]}, about), "a"),
    }
    for reason, (data, digest) in bad.items():
        store.write_bytes(CHECKPOINT, data)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert Checkpoints(store, digest).load() is None
        assert reason in caplog.text and "starts again" in caplog.text
    store.write_bytes(CHECKPOINT, whole)
    assert Checkpoints(store, "a").load() is not None


def test_checkpoints_are_written_after_their_time(sets, quick, store):
    config = dataclasses.replace(quick, epochs=2, epoch_images=12)
    train(*sets, config, accuracy, checkpoints=Checkpoints(store, "a", seconds=3600))
    assert store.list() == []
    train(*sets, config, accuracy, checkpoints=Checkpoints(store, "a", seconds=0))
    assert store.list() == [CHECKPOINT]


class Tracked:
    """Stands in for an MLflow run, and ends the training with a row of the history."""

    def __init__(self, last: int | None = None):
        self.last, self.steps = last, []

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        self.steps.append(step)
        if step == self.last:
            raise Interrupted


def test_a_step_goes_on_with_the_classifier_that_it_was_training(
    sets, quick, store, tmp_path, monkeypatch
):
    often = functools.partial(Checkpoints, seconds=0)
    monkeypatch.setattr(classifier_training, "Checkpoints", often)
    config = dataclasses.replace(quick, epoch_images=24)
    about = {"name": "real-seed0", "method": "real", "step": "train-classifier", "normal": None}
    runs = Tracked(last=3), Tracked(), Tracked()
    whole = Store(tmp_path / "undisturbed")
    with pytest.raises(Interrupted):
        train_into(store, *sets, config, run=runs[0], **about)
    assert store.list() == [CHECKPOINT]
    train_into(store, *sets, config, run=runs[1], **about)
    train_into(whole, *sets, config, run=runs[2], **about)
    assert [run.steps for run in runs] == [[1, 2, 3], [3, 4], [1, 2, 3, 4]]
    assert store.list() == whole.list() == [MODEL, WEIGHTS]
    found, expected = (Classifier.load(one) for one in (store, whole))
    assert found.checksum == expected.checksum and found.history == expected.history


def worker(rank: int, folder: str, sets: tuple, config: ClassifierConfig) -> tuple:
    """Train undisturbed, and with an interruption."""
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    store = Store(f"{folder}/store")
    try:
        expected = train(*sets, config, accuracy)
        interrupt(sets, config, Checkpoints(store, "a", seconds=0), epoch=3)
        dist.barrier()
        return expected, train(*sets, config, accuracy, checkpoints=Checkpoints(store, "a"))
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_go_on_together(sets, quick, tmp_path: Path):
    config = dataclasses.replace(quick, epoch_images=12, ema=0.9)
    with ProcessPoolExecutor(2, FORKSERVER) as pool:
        futures = [pool.submit(worker, rank, str(tmp_path), sets, config) for rank in range(2)]
        for future in futures:
            expected, found = future.result(timeout=120)
            assert_equal(found, expected)
