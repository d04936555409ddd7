"""train-gan in two stages, from other weights, and when a checkpoint cannot be written."""

from __future__ import annotations

import dataclasses
import errno

import numpy as np
import pytest
import torch

from gemix.core.distributed import Workers
from gemix.core.errors import StoreError
from gemix.data.shards.manifest import Manifest
from gemix.gan.checkpoints.checkpoint import checkpoints
from gemix.gan.checkpoints.generator_io import (
    load_generator,
    load_weights,
    save_imported,
    saved_architecture,
)
from gemix.gan.checkpoints.transfer import PretrainedWeights
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.training.registry import new_state
from gemix.io.storage import Store
from gemix.steps.gan_training.stage import Stage
from gemix.steps.train_gan import PRETRAINING, train_gan, training_spec

pytestmark = pytest.mark.slow


BOUND = 0.25


@pytest.fixture(scope="module")
def public(tiny_config, prepared, tmp_path_factory):
    """Imported networks of five classes whose convolutions are bounded."""
    spec = training_spec(tiny_config, Manifest.load(Store(prepared.data)))
    sizes = dataclasses.replace(spec.architecture, label_dim=5, conv_clamp=BOUND)
    store = Store(tmp_path_factory.mktemp("public"))
    state = new_state(sizes, tiny_config.gan, torch.device("cpu"))
    names = tuple("abcde")
    spec = dataclasses.replace(spec, architecture=sizes, classes=names)
    save_imported(store, PretrainedWeights.from_state(state), spec)
    return store


@pytest.fixture(scope="module")
def pretrained(tiny_config, prepared, public):
    gan = dataclasses.replace(tiny_config.gan, pretrain_kimg=0.032, init_from=public.url)
    config = dataclasses.replace(tiny_config, gan=gan)
    return config, train_gan(config, prepared)


def test_an_unconditional_stage_comes_before(pretrained, prepared):
    _, result = pretrained
    first = Store(f"{prepared.gan}/{PRETRAINING}")
    assert result["kimg"] == 0.064
    assert first.read_json("training.json")["kimg"] == 0.032
    assert first.exists("samples/00000004.png") and not first.exists("label_path.png")
    assert "mapping.embed.weight" not in load_weights(first).generator
    assert "mapping.embed.weight" in load_weights(Store(prepared.gan)).generator


def test_both_stages_keep_the_bound_of_the_network_they_start_from(pretrained, prepared):
    store = Store(prepared.gan)
    for stage in (store / PRETRAINING, store):
        assert saved_architecture(stage).conv_clamp == BOUND
    assert load_generator(store).network.architecture.conv_clamp == BOUND


def test_a_stop_between_the_stages_changes_nothing(pretrained, prepared, public):
    """Not even that the network which all started from is gone."""
    config, result = pretrained
    store = Store(prepared.gan)
    public.clear("generator.json")
    for name in ["generator.json", *(f"{c}.json" for c in checkpoints(store))]:
        store.delete(name)
    assert train_gan(config, prepared)["checksum"] == result["checksum"]


class SmallDisk(Store):
    """Takes the first `room` files of weights and no more."""

    room = 1

    def write_bytes(self, name: str, data: bytes) -> None:
        if name.endswith(".safetensors"):
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.room -= 1
        super().write_bytes(name, data)


class Silent:
    """Takes what a run logs."""

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


@pytest.fixture
def stage_in(tiny_config, prepared):
    """A stage of a training, in this process, with noise for scans."""
    spec = training_spec(tiny_config, Manifest.load(Store(prepared.data)))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (24, 1, 16, 16), dtype=np.uint8)
    data = InMemoryDataset(images, np.eye(3, dtype=np.float32)[np.arange(24) % 3], 0)
    return lambda store: Stage(store, spec, data, Workers(), Silent())


def test_a_training_starts_from_another_one(pretrained, stage_in, prepared):
    stage = stage_in(Store(f"{prepared.workdir}/elsewhere"))
    stage.first_weights = lambda: load_weights(Store(prepared.gan))
    old, started = (
        load_weights(Store(prepared.gan)),
        stage.load_or_init_state().generator_ema.state_dict(),
    )
    assert all(torch.equal(old.generator_ema[name], value) for name, value in started.items())


def test_a_snapshot_waits_until_a_step_goes_well(stage_in, tmp_path):
    """What is saved in the middle of trouble would be gone back to."""
    stage = stage_in(Store(tmp_path))
    healthy = stage.data.real_batch

    def real_batch(step, batch, positions):
        images, labels = healthy(step, batch, positions)
        return (images * float("nan") if step in (2, 3) else images), labels

    stage.data.real_batch = real_batch
    numbers = []
    state = stage.run(lambda state, number: numbers.append((state.step, number)))
    assert state.skipped_updates >= 2
    assert numbers == [(5, 1), (6, 2)]
    assert checkpoints(stage.store) == ["checkpoint-00000005", "checkpoint-00000006"]


def test_a_training_goes_on_from_checkpoints_in_s3(stage_in, tmp_path, bucket):
    class Killed(Exception):
        pass

    def kill_at_the_second(state, number):
        if number == 2:
            raise Killed

    undisturbed = stage_in(Store(tmp_path)).run()
    store = Store(f"{bucket}/gan")
    with pytest.raises(Killed):
        stage_in(store).run(kill_at_the_second)
    assert checkpoints(store) == ["checkpoint-00000003"]
    resumed = stage_in(store).run()
    assert resumed.step == undisturbed.step
    for name, network in undisturbed.networks.items():
        ours = resumed.networks[name].state_dict()
        assert all(torch.equal(ours[key], value) for key, value in network.state_dict().items())


def test_a_full_disk_keeps_the_last_good_checkpoint_and_says_so(stage_in, tmp_path, caplog):
    store = SmallDisk(tmp_path)
    stage = stage_in(store)
    state = stage.run()
    assert state.step == 8  # it went on without
    assert checkpoints(store) == ["checkpoint-00000003"]
    said = caplog.text
    assert "No space left" in said and "last good one is checkpoint-00000003" in said
    assert stage.load_or_init_state().step == 3
    with pytest.raises(StoreError, match=r"No space left.*make room.*from checkpoint-00000003$"):
        stage.finish(state)
    assert checkpoints(store) == ["checkpoint-00000003"]
    store.room = 1
    stage.finish(state)
    assert checkpoints(store)[-1] == "checkpoint-00000008"
