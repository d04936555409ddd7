"""The best generator of a training, by a figure."""

from __future__ import annotations

import pytest
import torch

from gemix.core.errors import CheckpointError
from gemix.gan.checkpoints.best_snapshot import read_best, save_best_generator, save_if_best
from gemix.gan.checkpoints.checkpoint import TrainingSpec
from gemix.gan.checkpoints.generator_io import load_generator
from gemix.gan.training.registry import new_state
from gemix.io.storage import Store
from tests.gan.test_training import ARCHITECTURE, CPU, tiny_config

MEASURED = {"figure": "kid", "images": 100, "extractor": "toy"}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


@pytest.fixture(scope="module")
def spec() -> TrainingSpec:
    config = tiny_config()
    classes = tuple("abc"[: ARCHITECTURE.label_dim])
    return TrainingSpec(architecture=ARCHITECTURE, config=config, classes=classes, data_digest="d")


def state_at(step: int):
    state = new_state(ARCHITECTURE, tiny_config(seed=step), CPU)
    state.step = step
    return state


def test_only_a_lower_score_replaces_the_best(store, spec):
    assert read_best(store) is None
    assert save_if_best(store, state_at(10), spec, 0.5, MEASURED)
    assert not save_if_best(store, state_at(20), spec, 0.5, MEASURED)
    assert save_if_best(store, state_at(30), spec, 0.4, MEASURED)
    assert not save_if_best(store, state_at(40), spec, 0.6, MEASURED)
    assert store.list() == ["best-00000030.safetensors", "best.json"]
    assert read_best(store)["score"] == 0.4


def test_a_score_of_another_measure_replaces_it(store, spec):
    save_if_best(store, state_at(10), spec, 0.1, MEASURED)
    assert save_if_best(store, state_at(20), spec, 0.9, MEASURED | {"extractor": "other"})


def test_the_best_becomes_the_generator(store, spec):
    best = state_at(10)
    save_if_best(store, best, spec, 0.1, MEASURED)
    checksum = save_best_generator(store)
    loaded = load_generator(store)
    assert loaded.checksum == checksum
    assert loaded.kimg == 10 * spec.config.batch / 1000
    for name, value in best.generator_ema.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value)


def test_a_kill_between_weights_and_json_leaves_the_old_best(store, spec, monkeypatch):
    save_if_best(store, state_at(10), spec, 0.5, MEASURED)

    def killed(name, value):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        save_if_best(store, state_at(20), spec, 0.4, MEASURED)
    monkeypatch.undo()
    assert read_best(store)["score"] == 0.5
    assert save_best_generator(store) == read_best(store)["sha256"]


def test_damaged_weights_are_refused(store, spec):
    save_if_best(store, state_at(10), spec, 0.5, MEASURED)
    data = store.read_bytes("best-00000010.safetensors")
    store.write_bytes("best-00000010.safetensors", data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="damaged"):
        save_best_generator(store)
