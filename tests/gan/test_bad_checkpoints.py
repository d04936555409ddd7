"""Checkpoints and generators that are damaged, or of something else, are named with a remedy."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest
from safetensors.torch import load, save

from gemix.core.errors import CheckpointError
from gemix.gan.checkpoints.best_snapshot import BEST, read_best, save_best_generator, save_if_best
from gemix.gan.checkpoints.checkpoint import check_resumable, checkpoints, save_checkpoint
from gemix.gan.checkpoints.generator_io import (
    load_generator,
    load_weights,
    save_generator,
    save_imported,
)
from gemix.gan.checkpoints.transfer import PretrainedWeights
from gemix.gan.training.registry import new_state
from gemix.gan.training.stages import resume_or_start
from gemix.io.storage import Store
from tests.gan.test_training import ARCHITECTURE, CPU, spec_of, tiny_config

CONFIG = tiny_config()
TO_THE_ONE_BEFORE = r"delete .*checkpoint-00000002\.json to go on from the checkpoint before it"
TRAIN_AGAIN = r"delete generator\.json and run gemix train-gan again"


@pytest.fixture
def store(tmp_path) -> Store:
    """A directory with checkpoints of two steps and a generator."""
    store, state = Store(tmp_path), new_state(ARCHITECTURE, CONFIG, CPU)
    for state.step in (1, 2):
        save_checkpoint(store, state, spec_of(CONFIG))
    save_generator(store, state, spec_of(CONFIG))
    return store


def harm_json(store: Store, name: str, harm) -> None:
    if harm == "cut":
        data = store.read_bytes(name)
        store.write_bytes(name, data[: len(data) // 2])
    elif harm == "empty":
        store.write_bytes(name, b"")
    elif harm == "list":
        store.write_json(name, [1])
    else:
        values = store.read_json(name)
        for path, value in harm.items():
            *above, key = path.split(".")
            target = values
            for step in above:
                target = target[step]
            target[key] = value
        store.write_bytes(name, json.dumps(values).encode())


HARMS = [
    "cut",
    "empty",
    "list",
    {"sha256": None},
    {"sha256": "0" * 64},
    {"architecture": 3},
    {"architecture.more": 3},
    {"architecture": {}},
]


@pytest.mark.parametrize("harm", [*HARMS, {"classes": None}, {"step": "2"}, {"fallback_level": -1}])
def test_a_checkpoint_whose_json_is_damaged_is_named(store, harm):
    harm_json(store, "checkpoint-00000002.json", harm)
    with pytest.raises(CheckpointError, match=rf"checkpoint-00000002.*{TO_THE_ONE_BEFORE}"):
        resume_or_start(store, spec_of(CONFIG), CPU)
    store.delete("checkpoint-00000002.json")  # as the message says
    assert resume_or_start(store, spec_of(CONFIG), CPU).step == 1


@pytest.mark.parametrize("harm", ["cut", "empty", "list", {"classes": None}])
def test_damaged_json_is_found_before_workers_start(store, harm):
    harm_json(store, "checkpoint-00000002.json", harm)
    with pytest.raises(CheckpointError, match=TO_THE_ONE_BEFORE):
        check_resumable(store, spec_of(CONFIG))


@pytest.mark.parametrize("harm", ["bit", "cut", "gone"])
def test_a_checkpoint_whose_tensors_are_damaged_is_named(store, harm):
    name = "checkpoint-00000002.safetensors"
    data = store.read_bytes(name)
    store.delete(name)
    if harm != "gone":
        store.write_bytes(name, data[:-1] + (b"" if harm == "cut" else b"\xff"))
    for read in (lambda: resume_or_start(store, spec_of(CONFIG), CPU), lambda: load_weights(store)):
        with pytest.raises(CheckpointError, match=rf"checkpoint-00000002.*{TO_THE_ONE_BEFORE}"):
            read()


def test_a_checkpoint_that_lacks_a_tensor_is_named_although_its_checksum_is_right(store):
    name = "checkpoint-00000002.safetensors"
    tensors = load(store.read_bytes(name))
    del tensors["generator.mapping.w_avg"]
    store.write_bytes(name, save(tensors))
    sha256 = hashlib.sha256(store.read_bytes(name)).hexdigest()
    harm_json(store, "checkpoint-00000002.json", {"sha256": sha256})
    with pytest.raises(CheckpointError, match=rf"w_avg.*{TO_THE_ONE_BEFORE}"):
        resume_or_start(store, spec_of(CONFIG), CPU)


def test_tensors_without_their_json_are_no_checkpoint(store):
    """So a kill leaves them."""
    store.delete("checkpoint-00000002.json")
    assert checkpoints(store) == ["checkpoint-00000001"]
    assert resume_or_start(store, spec_of(CONFIG), CPU).step == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("a", "b")}, r"on 3 classes \['a', 'b', 'c'\], the data has 2 \['a', 'b'\]"),
        ({"classes": ("a", "b", "d")}, r"classes were \['a', 'b', 'c'\], now \['a', 'b', 'd'\]"),
        ({"data_digest": "d2"}, "training images have changed, data_digest was 'd1', now 'd2'"),
        ({"config": tiny_config(pl_weight=1.0)}, "config changed: pl_weight was 2.0, now 1.0"),
        ({"resolution": 32, "data_digest": "d2"}, "architecture.*: resolution was 16, now 32"),
        ({"img_channels": 3, "data_digest": "d2"}, "architecture.*: img_channels was 1, now 3"),
        ({"channel_max": 8}, "architecture changed: channel_max was 16, now 8"),
        ({"conv_clamp": 256.0}, r"architecture changed: conv_clamp was None, now 256\.0"),
    ],
)
def test_a_checkpoint_continues_only_its_own_training(store, change, message):
    names = {field.name for field in dataclasses.fields(ARCHITECTURE)}
    sizes = {key: value for key, value in change.items() if key in names}
    rest = {key: value for key, value in change.items() if key not in names}
    architecture = dataclasses.replace(ARCHITECTURE, **sizes)
    other = dataclasses.replace(spec_of(CONFIG), architecture=architecture, **rest)
    for read in (lambda: check_resumable(store, other), lambda: resume_or_start(store, other, CPU)):
        with pytest.raises(CheckpointError, match=rf"-00000002.*{message}.*--overwrite"):
            read()


@pytest.mark.parametrize("harm", [*HARMS, {"config.method": "vae"}, {"classes": 3}])
def test_a_generator_whose_json_is_damaged_is_named(store, harm):
    harm_json(store, "generator.json", harm)
    with pytest.raises(CheckpointError, match=rf"generator\..*{TRAIN_AGAIN}"):
        load_generator(store)


@pytest.mark.parametrize(
    "change", [{"resolution": 32}, {"label_dim": 2}, {"img_channels": 3}, {"channel_base": 2**60}]
)
def test_a_generator_of_another_architecture_than_its_weights_is_refused_unbuilt(store, change):
    harm_json(store, "generator.json", {f"architecture.{k}": v for k, v in change.items()})
    with pytest.raises(CheckpointError, match=rf"generator.*{TRAIN_AGAIN}"):
        load_generator(store)


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_weights_of_a_generator_that_are_damaged_are_named(store, harm):
    data = store.read_bytes("generator.safetensors")
    store.delete("generator.safetensors")
    if harm == "cut":
        store.write_bytes("generator.safetensors", data[:-1])
    with pytest.raises(CheckpointError, match=rf"generator\.safetensors.*{TRAIN_AGAIN}"):
        load_generator(store)


@pytest.mark.parametrize(
    "harm", ["list", {"parts": {}}, {"parts": 3}, {"parts.discriminator": "0"}]
)
def test_imported_networks_that_are_damaged_are_named(tmp_path, harm):
    store, state = Store(tmp_path), new_state(ARCHITECTURE, CONFIG, CPU)
    weights = {name: network.state_dict() for name, network in state.networks.items()}
    save_imported(store, PretrainedWeights(**weights), spec_of(CONFIG))
    assert load_weights(store).discriminator is not None
    harm_json(store, "generator.json", harm)
    with pytest.raises(CheckpointError, match=r"import"):
        load_weights(store)


@pytest.mark.parametrize("harm", ["cut", "list", {"sha256": "0" * 64}])
def test_a_best_generator_that_is_damaged_is_named(store, harm):
    state = new_state(ARCHITECTURE, CONFIG, CPU)
    save_if_best(store, state, spec_of(CONFIG), 0.5, {"figure": "kid"})
    harm_json(store, BEST, harm)
    with pytest.raises(CheckpointError, match=r"best.*metrics\.use_best=false"):
        save_best_generator(store)
    if isinstance(harm, str):
        with pytest.raises(CheckpointError, match=r"best\.json.*delete it"):
            read_best(store)
