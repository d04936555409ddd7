"""The generator that ships: the last one, or the best one of all workers."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gemix.core.distributed import Workers
from gemix.core.errors import CheckpointError
from gemix.gan.checkpoints.best_snapshot import save_if_best
from gemix.gan.checkpoints.checkpoint import TrainingSpec
from gemix.gan.config import GanConfig
from gemix.gan.training.registry import new_state
from gemix.gan.training.state import TrainingState
from gemix.io.storage import Store
from gemix.steps.gan_training.shipped_generator import shipped_generator
from tests.steps.untrained_networks import ARCHITECTURE

SPEC = TrainingSpec(
    architecture=ARCHITECTURE, config=GanConfig(batch=8), classes=tuple("abc"), data_digest="d"
)


def state_at(step: int) -> TrainingState:
    config = dataclasses.replace(SPEC.config, seed=step)
    state = new_state(ARCHITECTURE, config, torch.device("cpu"))
    state.step = step
    return state


def ship(store: Store, state: TrainingState, use_best: bool = True):
    return shipped_generator(store, state, SPEC, Workers(), use_best=use_best)


@pytest.fixture
def best(tmp_path) -> TrainingState:
    state = state_at(100)
    save_if_best(Store(tmp_path), state, SPEC, 0.1, {"images": 50})
    return state


def test_the_last_one_ships_unless_the_best_is_asked_for(best, tmp_path):
    last = state_at(300)
    found = ship(Store(tmp_path), last, use_best=False)
    assert found.network is last.generator_ema and not found.is_best and found.kimg == 2.4


def test_the_best_one_ships_with_its_own_weights_and_kimg(best, tmp_path):
    last = state_at(300)
    found = ship(Store(tmp_path), last)
    assert found.is_best and found.kimg == 0.8
    for name, value in best.generator_ema.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], value)
    assert any(
        not torch.equal(value, found.network.state_dict()[name])
        for name, value in last.generator_ema.state_dict().items()
    )


def test_a_best_one_that_is_the_last_is_not_read_again(best, tmp_path):
    found = ship(Store(tmp_path), best)
    assert found.is_best and found.network is best.generator_ema


def test_the_last_one_ships_where_none_was_kept(tmp_path):
    last = state_at(300)
    found = ship(Store(tmp_path), last)
    assert found.network is last.generator_ema and not found.is_best


def test_a_damaged_best_one_names_the_remedy(best, tmp_path):
    store = Store(tmp_path)
    store.write_bytes("best-00000100.safetensors", b"damage")
    with pytest.raises(CheckpointError, match=r"metrics\.use_best=false"):
        ship(store, state_at(300))
