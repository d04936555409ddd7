"""Starting from the weights of another training, and freezing the discriminator."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gemix.core.errors import CheckpointError
from gemix.gan.checkpoints.checkpoint import TrainingSpec, save_checkpoint
from gemix.gan.checkpoints.generator_io import (
    load_generator,
    load_weights,
    save_generator,
    save_imported,
)
from gemix.gan.checkpoints.transfer import PretrainedWeights, load_pretrained
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.models.architecture import Architecture
from gemix.gan.training.loop import train
from gemix.gan.training.registry import new_state
from gemix.gan.training.stages import inherit_conv_clamp, pretraining_spec, resume_or_start
from gemix.io.storage import Store

CPU = torch.device("cpu")
SIZES = {"z_dim": 16, "w_dim": 16, "mapping_layers": 2, "channel_base": 128, "channel_max": 16}
ONE = Architecture(resolution=16, img_channels=1, label_dim=3, d_mapping_layers=2, **SIZES)


def config(**changes) -> GanConfig:
    return GanConfig(**SIZES | {"kimg": 0.032, "batch": 8, "precision": "float32"} | changes)


def trained(architecture: Architecture):
    rng = np.random.default_rng(0)
    labels = np.eye(architecture.label_dim, dtype=np.float32)
    labels = labels[np.arange(24) % max(1, len(labels))] if len(labels) else np.zeros((24, 0))
    size = (24, 1, architecture.resolution, architecture.resolution)
    data = InMemoryDataset(rng.integers(0, 255, size, dtype=np.uint8), labels, seed=0)
    return train(new_state(architecture, config(), CPU), data, config())


def images(generator, label: torch.Tensor | None) -> torch.Tensor:
    z = torch.from_numpy(np.random.RandomState(0).randn(4, 16)).float()
    with torch.no_grad():
        return generator(z, label, generator.synthesis.noise_const())


def test_the_same_architecture_is_taken_over_whole():
    old, new = trained(ONE), new_state(ONE, config(seed=5), CPU)
    assert load_pretrained(new, PretrainedWeights.from_state(old)) == []
    label = torch.eye(3)[[0, 1, 2, 0]]
    assert torch.equal(images(new.generator_ema, label), images(old.generator_ema, label))
    assert new.step == 0 and new.g_optimizer.state_dict()["state"] == {}


def test_an_unconditional_generator_starts_a_conditional_one():
    unconditional = dataclasses.replace(ONE, label_dim=0)
    old, new = trained(unconditional), new_state(ONE, config(seed=5), CPU)
    started_new = load_pretrained(new, PretrainedWeights.from_state(old))
    assert "generator.mapping.embed.weight" in started_new
    assert "discriminator.mapping.embed.weight" in started_new
    assert not [name for name in started_new if ".b16." in name]
    before = images(old.generator_ema, None)
    for label in torch.eye(3):  # whatever the label, the image is still the old one
        torch.testing.assert_close(images(new.generator_ema, label.repeat(4, 1)), before)


def test_another_number_of_classes_keeps_all_but_the_embeddings():
    old = trained(dataclasses.replace(ONE, label_dim=5))
    started_new = load_pretrained(new_state(ONE, config(), CPU), PretrainedWeights.from_state(old))
    assert started_new == [
        "generator.mapping.embed.weight",
        "discriminator.mapping.embed.weight",
    ]


def test_a_larger_image_takes_the_common_blocks():
    large = dataclasses.replace(ONE, resolution=32)
    new = new_state(large, config(), CPU)
    started_new = load_pretrained(new, PretrainedWeights.from_state(trained(ONE)))
    assert {name.split(".")[2] for name in started_new if "generator.synthesis" in name} == {"b32"}


def test_weights_that_share_nothing_are_refused():
    narrow = dataclasses.replace(ONE, w_dim=8, z_dim=8, channel_max=8, channel_base=64)
    new = new_state(narrow, config(), CPU)
    source = {f"other.{k}": v for k, v in trained(ONE).generator.state_dict().items()}
    with pytest.raises(CheckpointError, match="channel_base"):
        load_pretrained(new, PretrainedWeights(generator=source, generator_ema=source))


def test_frozen_layers_of_the_discriminator_stay():
    state = new_state(ONE, config(), CPU)
    before = {k: v.clone() for k, v in state.discriminator.state_dict().items()}
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (24, 1, 16, 16), dtype=np.uint8)
    data = InMemoryDataset(images, np.eye(3, dtype=np.float32)[np.arange(24) % 3], seed=0)
    train(state, data, config(freeze_d=3))
    same = {k for k, v in state.discriminator.state_dict().items() if torch.equal(v, before[k])}
    frozen = {
        f"b16.{layer}.{part}"
        for layer in ("fromrgb", "conv0", "conv1")
        for part in ("weight", "bias")
    }
    assert {name for name in same if "resample_filter" not in name} == frozen


BOUND = 0.1


def spec_of(architecture: Architecture) -> TrainingSpec:
    classes = tuple("abcdefg"[: architecture.label_dim])
    return TrainingSpec(
        architecture=architecture, config=config(), classes=classes, data_digest="d"
    )


@pytest.fixture(scope="module")
def bounded(tmp_path_factory) -> Store:
    """Imported networks without classes whose convolutions are bounded."""
    architecture = dataclasses.replace(ONE, label_dim=0, conv_clamp=BOUND)
    store = Store(tmp_path_factory.mktemp("bounded"))
    save_imported(store, PretrainedWeights.from_state(trained(architecture)), spec_of(architecture))
    return store


@pytest.mark.parametrize("change", [{}, {"label_dim": 5}, {"label_dim": 0}, {"resolution": 32}])
def test_the_bound_of_the_convolutions_goes_on(bounded, tmp_path, change):
    wanted = spec_of(dataclasses.replace(ONE, **change))
    begun = inherit_conv_clamp(wanted, [Store(tmp_path / "nothing"), bounded])
    assert begun == dataclasses.replace(wanted, architecture=begun.architecture)
    stage = pretraining_spec(begun)
    before = resume_or_start(Store(tmp_path), stage, CPU, lambda: load_weights(bounded))
    state = resume_or_start(
        Store(tmp_path), begun, CPU, lambda: PretrainedWeights.from_state(before)
    )
    for network in (state.generator, state.discriminator, before.generator_ema):
        assert network.architecture.conv_clamp == BOUND
    classes = begun.architecture.label_dim
    label = torch.eye(classes)[[0, 1, 2, 0]] if classes else None
    if begun.architecture.resolution == ONE.resolution:
        source = images(load_generator(bounded).network, None)
        torch.testing.assert_close(images(state.generator_ema, label), source)
        unbounded = resume_or_start(Store(tmp_path), wanted, CPU, lambda: load_weights(bounded))
        assert (images(unbounded.generator_ema, label) - source).abs().max() > 0.01
    save_generator(Store(tmp_path / "done"), state, begun)
    sampled = images(load_generator(Store(tmp_path / "done")).network, label)
    assert torch.equal(sampled, images(state.generator_ema, label))


def test_a_training_that_goes_on_keeps_its_own_bound(bounded, tmp_path):
    begun, gone = inherit_conv_clamp(spec_of(ONE), [bounded]), Store(tmp_path / "gone")
    state = resume_or_start(Store(tmp_path), begun, CPU, lambda: load_weights(bounded))
    save_checkpoint(Store(tmp_path), state, begun)
    again = inherit_conv_clamp(spec_of(ONE), [gone, Store(tmp_path)])
    assert again == begun
    resumed = resume_or_start(Store(tmp_path), again, CPU)
    assert resumed.generator.architecture.conv_clamp == BOUND
