"""Adaptive augmentation: p follows r_t, the mean sign of D(real) over all workers' samples."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from gemix.core.distributed import Workers
from gemix.gan.config import GanConfig
from gemix.gan.data.batch_split import local_indices
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.models.discriminator import DiscriminatorOutput
from gemix.gan.training.loop import train
from gemix.gan.training.registry import new_state
from gemix.gan.training.state import TrainingState
from gemix.gan.training.stylegan2_ada import StyleGAN2ADATrainer
from tests.gan.test_training import ARCHITECTURE as LARGER
from tests.gan.test_training import CPU, tiny_config
from tests.processes import run_processes

SIZES = {"mapping_layers": 1, "channel_base": 32, "channel_max": 4}
ARCHITECTURE = dataclasses.replace(LARGER, resolution=8, label_dim=0, d_mapping_layers=1, **SIZES)
BATCH, INTERVAL = 8, 4
SAMPLES = BATCH * INTERVAL  # between two adjustments of p
CHANGE = 0.05
EVEN, ODD = slice(0, None, 2), slice(1, None, 2)  # positions of two workers, whose groups are of 4


def config(**changes) -> GanConfig:
    settings = {
        "batch": BATCH,
        "ada_interval": INTERVAL,
        "ada_kimg": SAMPLES / CHANGE / 1000,
        "augment": "b",  # turns and shifts, which leave an even image as it is
        "r1_gamma": 0,
        "pl_weight": 0,
        "d_lr": 1e-6,
    }
    return tiny_config(**(SIZES | settings | changes))


class Judge(nn.Module):
    """Takes bright images for real ones and dark images for generated ones."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images, labels, dtype=torch.float32, batches=1):
        return self.outputs(images, labels, dtype, batches).logits

    def outputs(self, images, labels, dtype=torch.float32, batches=1):
        return DiscriminatorOutput(
            self.weight * images.mean(dim=(1, 2, 3))[:, None], class_logits=None
        )

    def nearest_to_image(self, layers):
        return []


class Signs(InMemoryDataset):
    """Real images that are bright where a table of signs [steps, batch] has 1, dark where -1."""

    def __init__(self, table: np.ndarray):
        super().__init__(np.zeros((1, 1, 8, 8), np.uint8), np.zeros((1, 0), np.float32), seed=0)
        self.table = torch.from_numpy(table).float()

    def real_batch(self, step, batch, positions):
        signs = self.table[step, list(positions)]
        images = signs[:, None, None, None].expand(-1, *self.shape).clone()
        return images, self.labels[:1].expand(len(signs), 0)


def signs(positive: int, shape=(INTERVAL, BATCH), seed: int = 0) -> np.ndarray:
    """So many times 1, at random places; -1 elsewhere."""
    table = -np.ones(int(np.prod(shape)), np.float32)
    table[np.random.default_rng(seed).permutation(table.size)[:positive]] = 1
    return table.reshape(shape)


def judged_state(settings: GanConfig, p: float = 0.0) -> TrainingState:
    state, judge = new_state(ARCHITECTURE, settings, CPU), Judge()
    group = {"params": [judge.weight], "initial_lr": settings.d_lr}
    optimizer = torch.optim.Adam([group], lr=settings.d_lr, fused=True)
    state.augment_p.fill_(p)
    return dataclasses.replace(state, discriminator=judge, d_optimizer=optimizer)


def followed(table: np.ndarray, p: float = 0.0, **changes) -> tuple[list[float], list[float]]:
    """p after each step of a training on a table of signs, and every r_t that it told."""
    batch = changes.get("batch", BATCH)
    settings = config(kimg=len(table) * batch / 1000, **changes)
    steps, told = [], []

    def on_step(state, values):
        steps.append(state.augment_p.item())
        told.extend([values["r_t"].item()] if "r_t" in values else [])

    train(judged_state(settings, p), Signs(table), settings, on_step=on_step)
    return steps, told


def test_p_rises_above_the_target_and_falls_below_it_once_an_interval():
    positive = [32, 26, 25, 0, 26]  # r_t of 0.6, the target, would be 25.6 of 32
    table = np.concatenate([signs(count, seed=count) for count in positive])
    steps, told = followed(table, p=0.3)
    assert told == pytest.approx([1.0, 0.625, 0.5625, -1.0, 0.625])
    expected = 0.3 + CHANGE * np.array([0, 1, 2, 1, 0, 1])
    assert steps == pytest.approx(np.repeat(expected, INTERVAL)[1 : len(table) + 1])


def test_p_stays_where_the_target_is_met():
    steps, told = followed(signs(24), p=0.3, ada_target=0.5)
    assert told == [0.5]
    assert steps == [0.3] * INTERVAL


@pytest.mark.parametrize(("batch", "interval"), [(8, 1), (8, 5), (4, 2)])
def test_p_takes_ada_kimg_from_0_to_1_whatever_the_batch_and_interval(batch, interval):
    count = 80 // batch
    settings = {"batch": batch, "ada_interval": interval, "ada_kimg": 0.08, "ada_p_max": 1}
    steps, _ = followed(np.ones((count, batch)), **settings)
    expected = [batch * interval / 80 * ((step + 1) // interval) for step in range(count)]
    assert steps == pytest.approx(expected)
    assert steps[-1] == pytest.approx(1)


@pytest.mark.parametrize(("sign", "p", "bound"), [(1, 0.57, 0.6), (-1, 0.03, 0)])
def test_p_stays_within_its_bounds(sign, p, bound):
    steps, _ = followed(np.full((3 * INTERVAL, BATCH), sign), p=p, ada_p_max=0.6)
    assert steps[INTERVAL - 1 :] == [bound] * (2 * INTERVAL + 1)


def test_samples_of_skipped_updates_do_not_count():
    table = np.concatenate([signs(32), signs(32), signs(32)])
    table[INTERVAL : 2 * INTERVAL] = table[-1] = np.nan
    table[-2] = -1
    steps, told = followed(table, p=0.3)
    assert told == pytest.approx([1.0, math.nan, 1 / 3], nan_ok=True)
    assert steps[INTERVAL - 1 :: INTERVAL] == pytest.approx([0.3 + CHANGE, 0.3 + CHANGE, 0.3])


def test_a_fixed_p_is_not_adapted():
    settings = config(augment_p=0.3, kimg=2 * SAMPLES / 1000)
    state = judged_state(settings, p=new_state(ARCHITECTURE, settings, CPU).augment_p)
    told = []
    train(
        state, Signs(signs(64, (8, 8))), settings, on_step=lambda state, values: told.extend(values)
    )
    assert state.augment_p == 0.3
    assert "r_t" not in told


@pytest.mark.parametrize("phase", ["train_discriminator", "train_generator"])
def test_the_networks_learn_with_the_p_of_the_state(phase):
    def loss(p: float) -> float:
        settings = config(augment="c")
        trainer = StyleGAN2ADATrainer(
            judged_state(settings, p), Signs(signs(16)), settings, Workers()
        )
        return getattr(trainer, phase)().item()

    assert len({loss(0.0), loss(0.2), loss(0.9)}) == 3
    assert loss(0.9) == loss(0.9)


def shared_table() -> np.ndarray:
    """Signs of two workers who disagree: first the even positions alone are above the target, and
    the mean below it; then the odd ones are below it, and the mean above it.
    """
    table = np.empty((2 * INTERVAL, BATCH), np.float32)
    share = (INTERVAL, BATCH // 2)
    table[:INTERVAL, EVEN], table[:INTERVAL, ODD] = signs(16, share), signs(9, share)
    table[INTERVAL:, EVEN], table[INTERVAL:, ODD] = signs(14, share), signs(12, share)
    return table


def in_the_middle() -> float:
    """r_t so far, from what a checkpoint between two adjustments of p would hold."""
    settings = config(kimg=(INTERVAL - 1) * BATCH / 1000)
    state = train(judged_state(settings), Signs(shared_table()), settings)
    return state.sign_sum.item() / state.sign_count


def run_worker(rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
    )
    torch.save(followed(shared_table(), p=0.3), f"{folder}/followed{rank}.pt")
    torch.save(in_the_middle(), f"{folder}/middle{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_workers_follow_the_mean_over_the_samples_of_all(tmp_path):
    assert local_indices(Workers(0, 2), BATCH, 4) == list(range(BATCH))[EVEN]
    run_processes(run_worker, args=(2, str(tmp_path)), nprocs=2)
    alone = followed(shared_table(), p=0.3)
    assert alone[1] == pytest.approx([0.5625, 0.625])
    assert alone[0][INTERVAL - 1 :: INTERVAL] == pytest.approx([0.3 - CHANGE, 0.3])
    for rank in range(2):
        assert torch.load(tmp_path / f"followed{rank}.pt", weights_only=True) == alone
        assert torch.load(tmp_path / f"middle{rank}.pt", weights_only=True) == in_the_middle()
