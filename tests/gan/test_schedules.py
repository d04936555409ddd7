"""What a training derives and schedules: Adam's settings, lazy regularizers, averages, mixing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gemix.core.config_schema import InvalidConfig
from gemix.core.distributed import Workers
from gemix.core.rng import Stream
from gemix.gan.checkpoints.checkpoint import save_checkpoint
from gemix.gan.config import GanConfig
from gemix.gan.losses.regularizers import path_length_penalty
from gemix.gan.models.architecture import Architecture
from gemix.gan.models.layers import MinibatchStdLayer
from gemix.gan.training.latents import mixed_styles
from gemix.gan.training.loop import train
from gemix.gan.training.registry import METHODS, new_state
from gemix.gan.training.stages import resume_or_start
from gemix.gan.training.state import TrainingState
from gemix.gan.training.stylegan2_ada import StyleGAN2ADATrainer
from gemix.io.storage import Store
from tests.gan.test_training import (
    ARCHITECTURE,
    CPU,
    assert_same,
    disks,
    spec_of,
    tiny_config,
    weights,
)


def trainer_of(settings: GanConfig, state: TrainingState | None = None) -> StyleGAN2ADATrainer:
    state = state or new_state(ARCHITECTURE, settings, CPU)
    return StyleGAN2ADATrainer(state, disks(), settings, Workers())


def flat_gradient(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def assert_near(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ((ours - theirs).norm() / theirs.norm()).item() < 1e-5


# Formulas of the papers at a few sizes, worked out by hand.


@pytest.mark.parametrize(
    ("resolution", "batch", "gamma"),
    [(64, 32, 0.0256), (128, 32, 0.1024), (256, 8, 1.6384), (512, 64, 0.8192), (1024, 32, 6.5536)],
)
def test_r1_gamma_follows_resolution_and_batch(resolution, batch, gamma):
    assert GanConfig(batch=batch).resolved_r1_gamma(resolution) == pytest.approx(gamma)
    assert GanConfig(batch=batch, r1_gamma=10).resolved_r1_gamma(resolution) == 10
    assert GanConfig(batch=batch, r1_gamma=0).resolved_r1_gamma(resolution) == 0


@pytest.mark.parametrize(("batch", "kimg"), [(4, 1.25), (32, 10), (64, 20)])
def test_the_half_life_of_the_average_follows_the_batch(batch, kimg):
    assert GanConfig(batch=batch).resolved_ema_kimg == pytest.approx(kimg)
    assert GanConfig(batch=batch, ema_kimg=500).resolved_ema_kimg == 500
    assert GanConfig(batch=batch, ema_kimg=0).resolved_ema_kimg == 0


@pytest.mark.parametrize(
    ("resolution", "lr", "base", "channels"),
    [
        (16, 0.0025, 16384, (512, 512)),
        (256, 0.0025, 16384, (512, 64)),
        (512, 0.0025, 32768, (512, 64)),
        (1024, 0.002, 32768, (512, 32)),
    ],
)
def test_learning_rates_and_feature_maps_follow_the_resolution(resolution, lr, base, channels):
    config = GanConfig()
    assert config.resolved_lr(None, resolution) == lr
    assert config.resolved_lr(0.01, resolution) == 0.01
    assert config.resolved_channel_base(resolution) == base
    assert GanConfig(channel_base=777).resolved_channel_base(resolution) == 777
    sizes = Architecture(resolution=resolution, img_channels=1, label_dim=0, channel_base=base)
    assert (sizes.channels(4), sizes.channels(resolution)) == channels


def test_other_defaults_are_those_of_the_paper():
    config = GanConfig()
    assert (config.z_dim, config.w_dim, config.mapping_layers) == (512, 512, 8)
    assert (config.mbstd_group_size, config.channel_max) == (4, 512)
    assert (config.d_reg_interval, config.g_reg_interval) == (16, 4)
    assert (config.pl_weight, config.pl_decay, config.pl_batch_shrink) == (2, 0.01, 2)
    assert (config.style_mixing_prob, config.ema_rampup) == (0.9, 0.05)
    assert (config.ada_target, config.ada_interval, config.ada_kimg) == (0.6, 4, 500)


@pytest.mark.parametrize("batch", [2, 4, 12])
def test_stddev_groups_are_of_four_or_of_the_whole_batch(batch):
    x = torch.randn(batch, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    extra = MinibatchStdLayer(GanConfig(batch=batch).mbstd_group_size)(x)[:, 3]
    groups = max(1, batch // 4)  # every so many samples are one
    of_group = [x[m::groups].numpy().std(axis=0).mean() for m in range(groups)]
    expected = np.tile(of_group, batch // groups)[:, None, None]
    np.testing.assert_allclose(extra, np.broadcast_to(expected, extra.shape), rtol=1e-5)


@pytest.mark.parametrize("batch", [6, 10])
def test_a_batch_that_groups_do_not_divide_is_refused(batch):
    with pytest.raises(InvalidConfig, match=rf"batch: given {batch}.*mbstd_group_size \(4\)"):
        GanConfig(batch=batch)


# Lazy regularization (Karras et al. 2020, appendix B).


@pytest.mark.parametrize(("g_interval", "d_interval"), [(4, 16), (1, 1), (8, 2)])
@pytest.mark.parametrize("resolution", [16, 1024])
def test_adam_makes_up_for_lazy_regularizers(g_interval, d_interval, resolution):
    config = GanConfig(g_reg_interval=g_interval, d_reg_interval=d_interval)
    base = 0.002 if resolution == 1024 else 0.0025
    adam = METHODS["stylegan2-ada"].adam(config, resolution)
    for settings, k in zip(adam, (g_interval, d_interval), strict=True):
        c = k / (k + 1)
        assert settings.lr == pytest.approx(base * c)
        assert settings.betas == pytest.approx((0, 0.99**c))


def test_the_optimizers_have_these_settings():
    settings = tiny_config(g_lr=0.004, d_lr=0.006, g_reg_interval=4, d_reg_interval=16)
    state = new_state(ARCHITECTURE, settings, CPU)
    (g,), (d,) = state.g_optimizer.param_groups, state.d_optimizer.param_groups
    assert (g["lr"], d["lr"]) == pytest.approx((0.004 * 4 / 5, 0.006 * 16 / 17))
    assert g["betas"] == pytest.approx((0, 0.99 ** (4 / 5)))
    assert d["betas"] == pytest.approx((0, 0.99 ** (16 / 17)))
    assert g["eps"] == d["eps"] == 1e-8


def test_a_network_without_regularizer_keeps_its_rate():
    adam, _ = METHODS["stylegan2-ada"].adam(GanConfig(pl_weight=0), 16)
    assert (adam.lr, adam.betas) == (0.0025, (0, 0.99))
    _, adam = METHODS["stylegan2-ada"].adam(GanConfig(r1_gamma=0), 16)
    assert (adam.lr, adam.betas) == (0.0025, (0, 0.99))


def test_regularizers_run_at_every_kth_step_only():
    settings = tiny_config(kimg=0.072, d_reg_interval=4, g_reg_interval=3)
    told = {}

    def on_step(state, values):
        told[state.step - 1] = {"path_length", "r1_penalty"} & set(values)

    train(new_state(ARCHITECTURE, settings, CPU), disks(), settings, on_step=on_step)
    assert [step for step, names in told.items() if "path_length" in names] == [0, 3, 6]
    assert [step for step, names in told.items() if "r1_penalty" in names] == [0, 4, 8]


@pytest.mark.parametrize(("gamma", "interval"), [(2.0, 1), (0.5, 16)])
def test_r1_has_the_weight_of_the_steps_between(gamma, interval):
    settings = tiny_config(augment="none", r1_gamma=gamma, d_reg_interval=interval)
    trainer = trainer_of(settings)
    told = trainer.regularize_discriminator()
    discriminator = new_state(ARCHITECTURE, settings, CPU).discriminator
    images, labels = disks().real_batch(0, 8, range(8))
    logits = discriminator(images.requires_grad_(), labels)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    penalty = gradient.square().sum() / 8
    (penalty * gamma / 2 * interval).backward()
    torch.testing.assert_close(told, penalty.detach())
    assert_near(flat_gradient(trainer.state.discriminator), flat_gradient(discriminator))


def path_length_step(**changes) -> tuple[torch.Tensor, torch.Tensor, TrainingState]:
    """Mean length, gradient and state after the generator's regularizer, from one beginning."""
    settings = tiny_config(**changes)
    state = new_state(ARCHITECTURE, settings, CPU)
    state.pl_mean = torch.tensor(0.5)
    trainer = trainer_of(settings, state)
    return trainer.regularize_generator(), flat_gradient(state.generator), state


def test_path_length_has_the_weight_of_the_steps_between():
    (_, once, _), (_, lazily, _), (_, strongly, _) = (
        path_length_step(g_reg_interval=interval, pl_weight=weight)
        for interval, weight in [(1, 2.0), (6, 2.0), (1, 5.0)]
    )
    assert_near(lazily, once * 6)
    assert_near(strongly, once * 2.5)


@pytest.mark.parametrize("decay", [0.01, 0.25])
def test_the_mean_path_length_moves_by_its_decay(decay):
    mean, _, state = path_length_step(pl_decay=decay)
    torch.testing.assert_close(state.pl_mean, 0.5 + decay * (mean - 0.5))


@pytest.mark.parametrize("decay", [0.01, 0.25])
def test_the_path_length_penalty_is_differentiated_through_the_running_mean(decay):
    """As the public implementation does; the mean as a constant differs by about `decay`."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.rand(8, generator=generator, dtype=torch.float64, requires_grad=True)
    running = torch.tensor(0.2, dtype=torch.float64)

    def penalty(lengths: torch.Tensor) -> torch.Tensor:
        return (lengths - (running + decay * (lengths.mean() - running))).square().mean()

    found, mean = path_length_penalty(lengths, lengths.mean(), running, decay)
    torch.testing.assert_close(found, penalty(lengths))
    torch.testing.assert_close(mean, running + decay * (lengths.detach().mean() - running))
    assert not mean.requires_grad
    (gradient,) = torch.autograd.grad(found, lengths)
    numeric = torch.stack(
        [
            (penalty(lengths + step) - penalty(lengths - step)) / 2e-6
            for step in torch.eye(8, dtype=torch.float64) * 1e-6
        ]
    )
    torch.testing.assert_close(gradient, numeric.detach(), rtol=1e-6, atol=1e-9)
    constant = 2 * (lengths - mean).detach() / 8
    assert ((gradient - constant).norm() / gradient.norm()).item() > decay / 10


def test_workers_differentiate_through_the_running_mean_of_all():
    lengths = torch.rand(8, generator=torch.Generator().manual_seed(0))

    def gradient(part: slice) -> torch.Tensor:
        own = lengths[part].clone().requires_grad_()
        penalty, _ = path_length_penalty(own, lengths.mean(), torch.tensor(0.2), 0.25)
        return torch.autograd.grad(penalty, own)[0]

    whole = gradient(slice(None))
    parts = [gradient(slice(None, 4)), gradient(slice(4, None))]
    torch.testing.assert_close(torch.cat(parts) / 2, whole)


# The generator's average, the mean style, style mixing.


def average_after(steps: int, **schedule) -> float:
    """How far the average went from 0 to weights that are all 1."""
    state = new_state(ARCHITECTURE, tiny_config(), CPU)
    with torch.no_grad():
        for parameter in state.generator.parameters():
            parameter.fill_(1)
        for parameter in state.generator_ema.parameters():
            parameter.fill_(0)
    for state.step in range(steps):
        state.update_ema(batch=8, **schedule)
    values = torch.cat([p.flatten() for p in state.generator_ema.parameters()])
    torch.testing.assert_close(values, values[:1].expand_as(values))
    return values[0].item()


@pytest.mark.parametrize(("steps", "remains"), [(1, 0.5**0.1), (10, 0.5), (30, 0.125)])
def test_the_average_has_its_half_life(steps, remains):
    assert average_after(steps, ema_kimg=0.08, ema_rampup=None) == pytest.approx(1 - remains)


def test_the_half_life_is_ramped_up_with_the_images_shown():
    """Half of the images shown until that is 20, as it is from the fifth step of 8 on."""
    halvings = sum(8 / (0.5 * 8 * step) for step in range(1, 6)) + 3 * 8 / 20
    after = average_after(8, ema_kimg=0.02, ema_rampup=0.5)
    assert 1 - after == pytest.approx(0.5**halvings, rel=1e-3)


def test_the_average_follows_the_generator_while_training():
    settings = tiny_config(ema_kimg=0.02, ema_rampup=0.5)
    state = new_state(ARCHITECTURE, settings, CPU)
    expected = [p.detach().double() for p in state.generator_ema.parameters()]

    def on_step(state, values):
        remains = 0.5 ** (8 / min(20, 0.5 * 8 * state.step))
        for average, parameter in zip(expected, state.generator.parameters(), strict=True):
            average.mul_(remains).add_(parameter.detach(), alpha=1 - remains)

    train(state, disks(), settings, on_step=on_step)
    for average, parameter in zip(expected, state.generator_ema.parameters(), strict=True):
        torch.testing.assert_close(parameter.double(), average, rtol=1e-5, atol=1e-6)
    assert torch.equal(state.generator_ema.mapping.w_avg, state.generator.mapping.w_avg)


def test_the_mean_style_moves_by_its_beta():
    state = new_state(ARCHITECTURE, tiny_config(), CPU)
    trainer, expected = trainer_of(tiny_config(), state), torch.zeros(16)
    for state.step in range(2):
        latents = trainer.loss.latents.draw(
            Stream.G_LATENT, trainer.step, trainer.parts[0].batch_index
        )
        with torch.no_grad():
            w = state.generator.mapping(latents.z[:, 0], latents.label)
        trainer.train_generator()
        expected = 0.995 * expected + 0.005 * w.mean(dim=0)
        torch.testing.assert_close(state.generator.mapping.w_avg, expected)


def crossovers(prob: float) -> torch.Tensor:
    """For 512 samples, how many of the 6 styles are those of the sample's first latent."""
    settings = tiny_config(batch=512, style_mixing_prob=prob)
    trainer = trainer_of(settings)
    generator, latents = trainer.state.generator, trainer.loss.latents
    drawn = latents.draw(Stream.G_LATENT, torch.tensor([0]), torch.arange(512))
    with torch.no_grad():
        mixed = mixed_styles(generator, drawn)
        first, second = (generator.map(drawn.z[:, i], drawn.label) for i in range(2))
    own = (mixed == first).all(dim=2)
    counts = own.sum(dim=1)
    layers = torch.arange(6)
    assert torch.equal(own, layers < counts[:, None])  # one crossover a sample
    assert torch.equal(mixed, torch.where(own[:, :, None], first, second))
    return counts


def test_style_mixing_changes_the_latent_with_its_probability_at_any_layer_but_the_first():
    assert crossovers(0.0).tolist() == [6] * 512
    always = torch.bincount(crossovers(1.0), minlength=7)
    assert always[0] == always[6] == 0
    assert always[1:6].min() > 512 / 5 * 0.7  # all five as likely
    share = (crossovers(0.25) < 6).float().mean()
    assert 0.19 < share < 0.31


# Resuming where the convolutions compute in bfloat16.


@pytest.mark.parametrize("method", METHODS)
def test_resuming_in_bfloat16_equals_never_stopping(tmp_path, method):
    settings = tiny_config(precision="bfloat16", method=method, augment="bgc", ada_interval=2)
    first, store = dataclasses.replace(settings, kimg=0.024), Store(tmp_path)

    def trained(settings: GanConfig, state: TrainingState | None = None, told=None):
        if state is None:
            state = new_state(ARCHITECTURE, settings, CPU)
            state.augment_p.fill_(0.5)

        def on_step(state, values):
            if told is not None:
                told[state.step] = values

        return train(state, disks(), settings, on_step=on_step)

    told, told_again = {}, {}
    undisturbed = trained(settings, told=told)
    save_checkpoint(store, trained(first), spec_of(first))
    resumed = trained(settings, resume_or_start(store, spec_of(settings), CPU), told_again)
    for step in (4, 5, 6):
        assert_same(told_again[step], told[step])
    assert (resumed.step, undisturbed.step) == (6, 6)
    assert_same(weights(resumed), weights(undisturbed))
    assert resumed.augment_p == undisturbed.augment_p > 0
    assert torch.equal(resumed.pl_mean, undisturbed.pl_mean)
    for ours, theirs in zip(
        resumed.optimizers.values(), undisturbed.optimizers.values(), strict=True
    ):
        for index, slots in theirs.state_dict()["state"].items():
            assert_same(ours.state_dict()["state"][index], slots)
    exact = weights(trained(dataclasses.replace(settings, precision="float32")))
    assert any(not torch.equal(exact[name], value) for name, value in weights(resumed).items())
