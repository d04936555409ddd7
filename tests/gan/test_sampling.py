"""Images are functions of seed, label and settings."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gemix.core.errors import CheckpointError, ConfigError
from gemix.gan.checkpoints.checkpoint import TrainingSpec
from gemix.gan.checkpoints.generator_io import load_generator, save_generator
from gemix.gan.config import GanConfig, SamplingConfig
from gemix.gan.models.architecture import Architecture
from gemix.gan.sampling import label_path, latents_of_seeds, sample_images
from gemix.gan.training.registry import new_state
from gemix.io.storage import Store

ARCHITECTURE = Architecture(
    resolution=16, img_channels=1, label_dim=3, z_dim=16, w_dim=16, channel_base=128, channel_max=16
)


@pytest.fixture(scope="module")
def state():
    state = new_state(ARCHITECTURE, GanConfig(), torch.device("cpu"))
    with torch.no_grad():  # untrained networks ignore noise, and hardly look at the label
        for block in state.generator_ema.synthesis.blocks:
            for conv in block.convs:
                conv.noise_strength.fill_(0.5)
    return state


def labels(count: int) -> np.ndarray:
    return np.random.default_rng(0).dirichlet([1, 1, 1], size=count).astype(np.float32)


@pytest.mark.parametrize(("classes", "weights"), [(0, 3), (3, 0), (3, 2)])
def test_labels_that_do_not_fit_are_refused(classes, weights):
    architecture = dataclasses.replace(ARCHITECTURE, label_dim=classes)
    generator = new_state(architecture, GanConfig(), torch.device("cpu")).generator_ema
    unfit = np.full((2, weights), 0.5, dtype=np.float32)
    with pytest.raises(
        ConfigError, match=rf"\[2, {weights}\].*{classes} classes.*\[2, {classes}\]"
    ):
        sample_images(generator, [0, 1], unfit, SamplingConfig())


def test_latents_are_those_of_the_public_tool():
    z = latents_of_seeds([0, 7], 512)
    assert z.shape == (2, 512)
    expected = np.random.RandomState(7).randn(1, 512).astype(np.float32)
    np.testing.assert_array_equal(z[1:].numpy(), expected)


@pytest.mark.parametrize("noise_mode", ["random", "const", "none"])
def test_an_image_does_not_depend_on_its_batch(state, noise_mode):
    config = SamplingConfig(noise_mode=noise_mode, batch=5)
    seeds, theta = list(range(100, 112)), labels(12)
    together = sample_images(state.generator_ema, seeds, theta, config)
    one = dataclasses.replace(config, batch=1)
    alone = sample_images(state.generator_ema, seeds[7:8], theta[7:8], one)
    assert together.shape == (12, 1, 16, 16) and together.dtype == np.uint8
    assert np.abs(together[7:8].astype(int) - alone).max() <= 1
    assert len({image.tobytes() for image in together}) == 12


def test_noise_modes_and_truncation_change_the_image(state):
    def image(**settings):
        return sample_images(state.generator_ema, [1], labels(1), SamplingConfig(**settings))

    images = [
        image(),
        image(noise_mode="const"),
        image(noise_mode="none"),
        image(noise_mode="none", truncation_psi=0.3),
    ]
    assert len({i.tobytes() for i in images}) == 4


def test_a_saved_generator_gives_the_same_images(state, tmp_path):
    spec = TrainingSpec(
        architecture=ARCHITECTURE, config=GanConfig(), classes=("a", "b", "c"), data_digest="d"
    )
    checksum = save_generator(Store(tmp_path), state, spec)
    loaded = load_generator(Store(tmp_path))
    assert (loaded.checksum, loaded.classes) == (checksum, ("a", "b", "c"))
    config = SamplingConfig()
    np.testing.assert_array_equal(
        sample_images(loaded.network, [3], labels(1), config),
        sample_images(state.generator_ema, [3], labels(1), config),
    )


def test_no_generator_says_what_to_run(tmp_path):
    with pytest.raises(CheckpointError, match="gemix train-gan"):
        load_generator(Store(tmp_path))


def test_the_label_path_runs_between_each_two_classes():
    path = label_path(3, 5)
    assert path.shape == (3, 5, 3)
    np.testing.assert_allclose(path.sum(axis=2), 1, atol=1e-6)
    np.testing.assert_array_equal(path[:, 0].argmax(1), [0, 0, 1])
    np.testing.assert_array_equal(path[:, -1].argmax(1), [1, 2, 2])
    np.testing.assert_allclose(path[1, 2], [0.5, 0, 0.5])
