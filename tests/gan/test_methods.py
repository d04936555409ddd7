"""The contract of every GAN method: one suite, and each must pass it."""

from __future__ import annotations

import dataclasses
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from test_training import ARCHITECTURE, CPU, assert_same, disks, origin, tiny_config, weights

from gemix.core.distributed import Workers
from gemix.core.errors import CheckpointError
from gemix.gan.checkpoints.checkpoint import save_checkpoint
from gemix.gan.checkpoints.generator_io import load_generator, save_generator
from gemix.gan.config import GanConfig, SamplingConfig
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.sampling import label_path, sample_images
from gemix.gan.training.divergence import DivergedError
from gemix.gan.training.loop import train
from gemix.gan.training.registry import METHODS, new_state
from gemix.gan.training.stages import resume_or_start
from gemix.io.storage import Store

PHASES = ("train_generator", "train_discriminator")


@pytest.fixture(params=METHODS)
def config(request) -> GanConfig:
    return tiny_config(method=request.param)


@pytest.fixture
def state(config):
    return new_state(ARCHITECTURE, config, CPU)


def soft_labels(count: int) -> np.ndarray:
    return np.random.default_rng(0).dirichlet([1, 1, 1], size=count).astype(np.float32)


def test_the_setting_knows_every_method():
    assert set(get_args(get_type_hints(GanConfig)["method"])) == set(METHODS)


def test_one_step_moves_every_network(config, state):
    before, seen = weights(state), {}
    train(
        state, disks(), dataclasses.replace(config, kimg=0.008), on_step=lambda _, v: seen.update(v)
    )
    after = weights(state)
    for key in state.networks:
        assert any(not torch.equal(before[n], after[n]) for n in before if n.startswith(f"{key}."))
    assert state.step == 1
    assert all(torch.isfinite(seen[name]) for name in ("loss_g", "loss_d"))


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(config, state):
    config = dataclasses.replace(config, kimg=0.016)
    first = weights(train(state, disks(), config))
    assert_same(first, weights(train(new_state(ARCHITECTURE, config, CPU), disks(), config)))
    other = dataclasses.replace(config, seed=1)
    second = weights(train(new_state(ARCHITECTURE, other, CPU), disks(), other))
    assert any(not torch.equal(first[name], second[name]) for name in first)


class Apart(Workers):
    """One of several workers, who keeps its gradients to itself."""

    def all_reduce_grads(self, gradients):
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


def run_worker(rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
    )
    for method in METHODS:
        config = tiny_config(kimg=0.016, method=method)
        state = train(new_state(ARCHITECTURE, config, CPU), disks(), config)
        torch.save(weights(state), f"{folder}/{method}{rank}.pt")
        torch.save(
            phase(config, "train_generator", Workers.from_process_group()),
            f"{folder}/{method}-g{rank}.pt",
        )
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_end_with_equal_weights(tmp_path):
    mp.spawn(run_worker, args=(2, str(tmp_path)), nprocs=2)
    load = lambda name: torch.load(tmp_path / f"{name}.pt", weights_only=True)  # noqa: E731
    for method in METHODS:
        assert_same(load(f"{method}0"), load(f"{method}1"))
        _, alone = phase(tiny_config(method=method), "train_generator", Workers())
        assert (load(f"{method}-g0")[1] - alone).norm() / alone.norm() < 1e-5


def test_resuming_equals_never_stopping(config, state, tmp_path):
    undisturbed = train(state, disks(), config)
    first, store = dataclasses.replace(config, kimg=0.024), Store(tmp_path)
    stopped = train(new_state(ARCHITECTURE, first, CPU), disks(), first)
    save_checkpoint(store, stopped, origin(first))
    resumed = train(resume_or_start(store, origin(config), CPU), disks(), config)
    assert (resumed.step, undisturbed.step) == (6, 6)
    assert_same(weights(resumed), weights(undisturbed))


def test_a_checkpoint_of_another_method_is_refused(config, state, tmp_path):
    store = Store(tmp_path)
    save_checkpoint(store, state, origin(config))
    (other,) = set(METHODS) - {config.method}
    changed = tiny_config(method=other)
    with pytest.raises(CheckpointError, match=f"method was '{config.method}', now '{other}'"):
        resume_or_start(store, origin(changed), CPU)


def test_an_image_follows_from_its_seed_and_label(state):
    seeds, theta = list(range(100, 112)), soft_labels(12)
    together = sample_images(state.generator_ema, seeds, theta, SamplingConfig(batch=5), CPU)
    alone = sample_images(state.generator_ema, seeds[7:8], theta[7:8], SamplingConfig(), CPU)
    assert together.shape == (12, 1, 16, 16) and together.dtype == np.uint8
    assert np.abs(together[7:8].astype(int) - alone).max() <= 1
    assert len({image.tobytes() for image in together}) == 12


def test_a_soft_label_reaches_both_networks(state):
    z = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    path = torch.from_numpy(label_path(3, 3)[0])  # a class, half of it and another, the other
    with torch.no_grad():
        images = [state.generator(z, label[None]) for label in path]
        logits = [state.discriminator(images[0], label[None]) for label in path]
    for values in (images, logits):
        assert all(not torch.equal(values[a], values[b]) for a, b in [(0, 1), (1, 2), (0, 2)])


def test_a_saved_generator_gives_the_same_images(config, state, tmp_path):
    train(state, disks(), dataclasses.replace(config, kimg=0.016))
    checksum = save_generator(Store(tmp_path), state, origin(config))
    loaded = load_generator(Store(tmp_path))
    assert (loaded.checksum, loaded.kimg, type(loaded.network)) == (
        checksum,
        0.016,
        type(state.generator),
    )
    for noise_mode in ("random", "const", "none"):
        sampling = SamplingConfig(noise_mode=noise_mode, truncation_psi=0.7)
        images = [
            sample_images(network, [3, 4], soft_labels(2), sampling, CPU)
            for network in (loaded.network, state.generator_ema)
        ]
        np.testing.assert_array_equal(*images)


def test_truncation_to_nothing_leaves_one_image_a_label(state):
    sampling = SamplingConfig(truncation_psi=0, noise_mode="const")
    one, two = sample_images(
        state.generator_ema, [1, 2], np.eye(3, dtype=np.float32)[[0, 0]], sampling, CPU
    )
    np.testing.assert_array_equal(one, two)


def test_unconditional_training(config):
    images = disks().images.numpy()
    data = InMemoryDataset(images, np.zeros((len(images), 0), np.float32), seed=3)
    architecture = dataclasses.replace(ARCHITECTURE, label_dim=0)
    config = dataclasses.replace(config, kimg=0.016)
    state = train(new_state(architecture, config, CPU), data, config)
    no_labels = np.zeros((2, 0), np.float32)
    made = sample_images(state.generator_ema, [0, 1], no_labels, SamplingConfig(), CPU)
    assert made.shape == (2, 1, 16, 16)


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
