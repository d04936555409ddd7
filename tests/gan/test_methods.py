"""The contract of every GAN method: one suite, and each must pass it."""

from __future__ import annotations

import dataclasses
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gemix.core.distributed import Workers
from gemix.core.errors import CheckpointError
from gemix.gan.checkpoints.checkpoint import save_checkpoint
from gemix.gan.config import GanConfig, SamplingConfig
from gemix.gan.losses.registry import ADVERSARIAL_LOSSES
from gemix.gan.sampling import sample_images
from gemix.gan.testing import (
    METHOD_CHECKS,
    check_hint,
    check_loss,
    check_resume,
    check_step,
    check_workers,
)
from gemix.gan.training.cgan import CganTrainer
from gemix.gan.training.divergence import DivergedError
from gemix.gan.training.loop import train
from gemix.gan.training.registry import METHODS, new_state
from gemix.gan.training.stages import resume_or_start
from gemix.io.storage import Store
from tests.gan.test_training import ARCHITECTURE, CPU, disks, spec_of, tiny_config

PHASES = ("train_generator", "train_discriminator")


@pytest.fixture(params=METHODS)
def config(request) -> GanConfig:
    return tiny_config(method=request.param)


@pytest.fixture
def state(config):
    return new_state(ARCHITECTURE, config, CPU)


@pytest.mark.parametrize(
    "check",
    [pytest.param(c, marks=pytest.mark.slow if c is check_workers else ()) for c in METHOD_CHECKS],
)
@pytest.mark.parametrize("method", METHODS)
def test_method_passes_the_contract(method, check):
    check(method)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_loss_passes_the_contract(name):
    check_loss(name)


class Forgetful(CganTrainer):
    """A method that breaks the contract in many ways."""

    hint = "patience, or gan.batch=64"

    def run_phases(self):
        torch.manual_seed(self.workers.rank + os.getpid())
        losses = {"loss_d": self.train_discriminator()}
        self.state.update_ema(self.config.batch, ema_kimg=0, ema_rampup=None)
        return losses

    def draw_latents(self, stream, step, batch_index):
        _, label = super().draw_latents(stream, step, batch_index)
        return torch.randn(len(label), 16), label


@pytest.mark.parametrize(
    ("check", "complaint"),
    [
        (check_step, "no weight of generator moves"),
        (check_hint, r"\['batch'\]"),
        (check_resume, "weights of a resumed training differ"),
    ],
)
def test_the_contract_finds_what_a_method_lacks(monkeypatch, check, complaint):
    monkeypatch.setitem(METHODS, "cgan", Forgetful)
    if check is check_resume:
        monkeypatch.setattr(Forgetful, "run_phases", CganTrainer.run_phases)
    with pytest.raises(AssertionError, match=complaint):
        check("cgan")


class Apart(Workers):
    """One of several workers, who keeps its gradients to itself."""

    def all_reduce_async(self, value):
        value *= self.size  # as if the others had the same
        return SimpleNamespace(wait=lambda: None)

    def broadcast_tensors(self, tensors):
        pass

    def all_reduce_mean(self, value):
        return value


def phase(config: GanConfig, name: str, workers: Workers) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and flat gradient of one phase of the first step, from the same weights."""
    state = new_state(ARCHITECTURE, config, CPU)
    trainer = METHODS[config.method](state, disks(), config, workers)
    loss = getattr(trainer, name)()
    network = state.generator if name == "train_generator" else state.discriminator
    gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    return loss, torch.cat(gradients)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", PHASES)
def test_workers_share_the_loss_and_gradients_of_one(config, name, size):
    config = dataclasses.replace(config, batch=16)
    loss, gradient = phase(config, name, Workers())
    parts = [phase(config, name, Apart(rank, size)) for rank in range(size)]
    losses, gradients = (torch.stack(side).mean(dim=0) for side in zip(*parts, strict=True))
    assert abs(losses - loss) < 1e-5
    assert (gradients - gradient).norm() / gradient.norm() < 1e-5
    assert (parts[0][1] - gradient).norm() / gradient.norm() > 1e-2  # the parts do differ


def test_a_checkpoint_of_another_method_is_refused(config, state, tmp_path):
    store = Store(tmp_path)
    save_checkpoint(store, state, spec_of(config))
    (other,) = set(METHODS) - {config.method}
    changed = tiny_config(method=other)
    with pytest.raises(CheckpointError, match=f"method was '{config.method}', now '{other}'"):
        resume_or_start(store, spec_of(changed), CPU)


def test_truncation_to_nothing_leaves_one_image_a_label(state):
    sampling = SamplingConfig(truncation_psi=0, noise_mode="const")
    one, two = sample_images(
        state.generator_ema, [1, 2], np.eye(3, dtype=np.float32)[[0, 0]], sampling, CPU
    )
    np.testing.assert_array_equal(one, two)


def test_bfloat16_stays_close_to_float32(config):
    steps = []
    for precision in ("float32", "bfloat16"):
        changed = dataclasses.replace(config, precision=precision)
        steps.append(torch.cat([phase(changed, name, Workers())[1] for name in PHASES]))
    assert not torch.equal(*steps)
    assert torch.nn.functional.cosine_similarity(*steps, dim=0) > 0.98


def test_divergence_names_settings_of_the_method(config, state):
    with torch.no_grad():
        next(state.discriminator.parameters()).fill_(float("nan"))
    setting = {"stylegan2-ada": "gan.g_lr", "cgan": "gan.cgan_lr"}[config.method]
    with pytest.raises(DivergedError, match=setting):
        train(state, disks(), dataclasses.replace(config, max_skipped_steps=2))
