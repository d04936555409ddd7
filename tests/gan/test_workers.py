"""Several workers compute what one computes."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from gemix.core.distributed import Workers
from gemix.gan.training.loop import train
from gemix.gan.training.registry import new_state
from gemix.gan.training.stylegan2_ada import StyleGAN2ADATrainer
from tests.gan.test_training import ARCHITECTURE, CPU, disks, tiny_config
from tests.processes import run_processes


def run_worker(rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
    )
    config = tiny_config(kimg=0.032, batch=16)
    state = train(new_state(ARCHITECTURE, config, CPU), disks(), config)
    torch.save(state.generator.state_dict(), f"{folder}/generator{rank}.pt")
    gradients = first_gradients(Workers.from_process_group())
    torch.save(gradients, f"{folder}/gradients{rank}.pt")
    dist.destroy_process_group()


def first_gradients(workers: Workers) -> dict[str, torch.Tensor]:
    """Gradients of every phase of a first step, one after the other, from the same weights."""
    config, found = tiny_config(batch=16, augment="bgc", augment_p=0.5), {}
    phases = (
        "train_generator",
        "regularize_generator",
        "train_discriminator",
        "regularize_discriminator",
    )
    for phase in phases:
        state = new_state(ARCHITECTURE, config, CPU)
        getattr(StyleGAN2ADATrainer(state, disks(), config, workers), phase)()
        network = state.generator if "generator" in phase else state.discriminator
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                found[f"{phase}.{name}"] = parameter.grad
    return found


@pytest.mark.slow
@pytest.mark.parametrize("size", [4])  # two are in the contract of every method
def test_workers_have_the_gradients_of_one_and_equal_weights(tmp_path, size):
    run_processes(run_worker, args=(size, str(tmp_path)), nprocs=size)
    load = lambda name: torch.load(tmp_path / name, weights_only=True)  # noqa: E731
    ours, alone = load("gradients0.pt"), first_gradients(Workers())
    assert ours.keys() == alone.keys()
    for phase in {name.split(".")[0] for name in alone}:
        one, shared = (
            torch.cat([g.flatten() for n, g in side.items() if n.startswith(f"{phase}.")])
            for side in (alone, ours)
        )
        assert (shared - one).norm() / one.norm() < 1e-5, phase
    first, last = load("generator0.pt"), load(f"generator{size - 1}.pt")
    assert all(torch.equal(first[name], last[name]) for name in first)
