"""The CGAN baseline: its objective, its networks, and that it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from gemix.core.distributed import Workers
from gemix.core.rng import Stream
from gemix.gan.config import GanConfig, SamplingConfig
from gemix.gan.data.batch_split import local_indices
from gemix.gan.losses import adversarial as losses
from gemix.gan.models.architecture import Architecture
from gemix.gan.models.cgan import CganDiscriminator, CganGenerator
from gemix.gan.sampling import sample_images
from gemix.gan.training.cgan import CganTrainer
from gemix.gan.training.loop import train
from gemix.gan.training.registry import new_state
from tests.gan.test_training import ARCHITECTURE, CPU, disks, tiny_config

LOGITS = torch.tensor([[0.0], [2.0], [-1.0], [30.0], [-30.0]])


def probabilities(logits: torch.Tensor) -> list[float]:
    return [1 / (1 + math.exp(-x)) for x in logits.flatten().tolist()]


def test_the_losses_are_those_of_equation_2():
    log, p = math.log, probabilities(LOGITS[:3])
    minimax = sum(log(1 - x) for x in p) / 3
    nonsaturating = -sum(log(x) for x in p) / 3
    assert losses.minimax_generator_loss(LOGITS[:3]).item() == pytest.approx(minimax, rel=1e-6)
    assert losses.nonsaturating_generator_loss(LOGITS[:3]).item() == pytest.approx(
        nonsaturating, rel=1e-6
    )
    # the discriminator maximizes E[log D(x)] + E[log(1 - D(G(z)))], so it minimizes the negative
    real, fake = LOGITS[:3], LOGITS[:3] - 1
    value = sum(map(log, probabilities(real))) / 3
    value += sum(log(1 - x) for x in probabilities(fake)) / 3
    assert losses.logistic_discriminator_loss(real, fake).item() == pytest.approx(-value, rel=1e-6)


def test_the_losses_stay_exact_where_the_discriminator_is_sure():
    assert losses.minimax_generator_loss(LOGITS[3:4]).item() == pytest.approx(-30)
    assert losses.minimax_generator_loss(LOGITS[4:]).item() == pytest.approx(-math.exp(-30))
    assert losses.nonsaturating_generator_loss(LOGITS[4:]).item() == pytest.approx(30)


def test_minimax_saturates_where_the_other_does_not():
    gradients = {}
    for name in ("minimax_generator_loss", "nonsaturating_generator_loss"):
        logits = torch.tensor([[-10.0]], requires_grad=True)
        getattr(losses, name)(logits).backward()
        gradients[name] = logits.grad.item()
    p = 1 / (1 + math.exp(10))
    assert gradients["minimax_generator_loss"] == pytest.approx(-p, rel=1e-4)
    assert gradients["nonsaturating_generator_loss"] == pytest.approx(p - 1, rel=1e-4)


@pytest.mark.parametrize("name", ["minimax", "nonsaturating"])
def test_the_generator_is_trained_on_the_loss_that_is_set(name):
    config = tiny_config(method="cgan", cgan_loss=name)
    state = new_state(ARCHITECTURE, config, CPU)
    trainer = CganTrainer(state, disks(), config, Workers())
    z, label = trainer.draw_latents(Stream.G_LATENT, trainer.step, trainer.parts[0].batch_index)
    with torch.no_grad():
        p = torch.sigmoid(state.discriminator(state.generator(z, label), label))
    expected = torch.log(1 - p).mean() if name == "minimax" else -torch.log(p).mean()
    assert trainer.train_generator().item() == pytest.approx(expected.item(), rel=1e-5)
    assert (config.adversarial_loss, config.summary) == (name, f"CGAN, {name} loss")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resolution", [8, 16, 128, 1024])
def test_networks_of_every_resolution(resolution, channels):
    architecture = Architecture(
        resolution=resolution,
        img_channels=channels,
        label_dim=4,
        z_dim=8,
        channel_base=1024,
        channel_max=8,
    )
    generator, discriminator = CganGenerator(architecture), CganDiscriminator(architecture)
    label = torch.tensor([[0.7, 0.2, 0.1, 0.0]])
    with torch.no_grad():
        images = generator(torch.randn(1, 8), label)
        assert images.shape == (1, channels, resolution, resolution)
        assert images.abs().max() <= 1
        assert discriminator(images, label).shape == (1, 1)


def test_weights_start_as_in_dcgan():
    torch.manual_seed(0)
    architecture = Architecture(resolution=32, img_channels=1, label_dim=3, channel_max=128)
    for network in (CganGenerator(architecture), CganDiscriminator(architecture)):
        modules = list(network.modules())
        kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
        drawn = torch.cat([m.weight.flatten() for m in modules if isinstance(m, kinds)])
        assert drawn.std().item() == pytest.approx(0.02, rel=0.01)
        scales = torch.cat([m.weight for m in modules if isinstance(m, nn.GroupNorm)])
        assert scales.mean().item() == pytest.approx(1, abs=0.01)
        assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in modules)


def test_the_optimizers_are_those_of_dcgan():
    state = new_state(ARCHITECTURE, tiny_config(method="cgan"), CPU)
    for optimizer in state.optimizers.values():
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"]) == (0.0002, (0.5, 0.999))


def test_the_generator_that_is_sampled_is_the_one_that_is_trained():
    config = tiny_config(method="cgan")
    state = train(new_state(ARCHITECTURE, config, CPU), disks(), config)
    average = state.generator_ema.state_dict()
    assert all(torch.equal(average[k], v) for k, v in state.generator.state_dict().items())


def test_any_even_share_of_the_batch_will_do():
    config = GanConfig(method="cgan", batch=6)
    assert [local_indices(Workers(rank, 6), 6, config.sample_group) for rank in range(6)] == [
        [rank] for rank in range(6)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minimax", "nonsaturating"])
def test_the_generator_learns_the_classes(name):
    config = tiny_config(method="cgan", cgan_loss=name, kimg=5, batch=16, cgan_lr=0.001)
    state = train(new_state(ARCHITECTURE, config, CPU), disks(), config)
    labels = np.eye(3, dtype=np.float32).repeat(16, axis=0)
    images = sample_images(state.generator_ema, list(range(48)), labels, SamplingConfig(), CPU)
    centres = images[:, :, 6:10, 6:10].mean(axis=(1, 2, 3)).reshape(3, 16).mean(axis=1)
    # the real ones are at 60, 150 and 240
    assert centres[0] + 40 < centres[1] < centres[2] - 40
