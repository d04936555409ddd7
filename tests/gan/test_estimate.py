"""The estimate counts what a training step computes, without computing it."""

from __future__ import annotations

import dataclasses

import pytest
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from gemix.core.distributed import Workers
from gemix.gan.estimate import TrainingCost, estimate_cost
from gemix.gan.training.registry import METHODS, new_state
from tests.gan.test_training import ARCHITECTURE, CPU, disks, tiny_config


class NoTracking(ModuleTracker):
    """Attributes nothing to modules: its hooks fail in the gradients of torch.func."""

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass


@pytest.mark.parametrize("method", METHODS)
def test_the_operations_are_those_of_a_real_step(method, monkeypatch):
    monkeypatch.setattr("gemix.gan.augment.augmenter.selects_changed", lambda images: False)
    config = tiny_config(method=method)
    state = new_state(ARCHITECTURE, config, CPU)
    trainer = METHODS[method](state, disks(), config, Workers())
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = NoTracking()
    with counter:
        trainer.run_step()  # the first step runs every phase
    cost = estimate_cost(ARCHITECTURE, config)
    assert list(cost.phase_flops) and set(cost.phase_flops) == set(METHODS[method].phases(config))
    assert sum(cost.phase_flops.values()) == pytest.approx(counter.get_total_flops(), rel=1e-6)
    assert cost.parameters["generator"] == sum(p.numel() for p in state.generator.parameters())


def test_lazy_phases_count_by_their_share_and_absent_ones_not_at_all():
    config = tiny_config(g_reg_interval=4, d_reg_interval=16)
    cost = estimate_cost(ARCHITECTURE, config)
    of = cost.phase_flops
    whole = of["generator"] + of["path length"] / 4 + of["discriminator"] + of["R1"] / 16
    assert cost.flops_per_step == pytest.approx(whole)
    assert cost.flops_per_image == pytest.approx(whole / config.batch)
    g, d = (4 * cost.parameters[name] for name in ("generator", "discriminator"))
    assert cost.gradient_bytes_per_step == pytest.approx(g * (1 + 1 / 4) + d * (1 + 1 / 16))
    without = estimate_cost(ARCHITECTURE, dataclasses.replace(config, pl_weight=0.0))
    assert "path length" not in without.phase_flops
    half = dataclasses.replace(config, allreduce_precision="bfloat16")
    assert estimate_cost(ARCHITECTURE, half).gradient_bytes_per_step == pytest.approx(
        cost.gradient_bytes_per_step / 2
    )


def test_augmentation_costs_next_to_nothing_and_may_be_none():
    with_it, without = (
        estimate_cost(ARCHITECTURE, tiny_config(augment=name)).flops_per_step
        for name in ("bgc", "none")
    )
    assert without < with_it < 1.5 * without  # much less at the sizes of scans


def test_hours_of_computation_and_of_a_ring_all_reduce():
    cost = TrainingCost(
        kimg=3.6,
        batch=10,
        flops_per_step=2e12,
        phase_flops={},
        gradient_bytes_per_step=1e9,
        parameters={},
    )
    assert cost.steps == 360
    assert cost.compute_hours(tflops=1.0) == pytest.approx(360 * 2 / 3600)
    assert cost.compute_hours(tflops=2.0, workers=4) == pytest.approx(360 / 4 / 3600)
    # 4 workers send 3/2 of 8 Gbit each step
    assert cost.allreduce_hours(12.0, workers=4) == pytest.approx(360 * 1 / 3600)
    assert cost.allreduce_hours(12.0, workers=1) == 0


def test_a_step_that_no_machine_here_could_run_is_counted():
    huge = dataclasses.replace(ARCHITECTURE, resolution=256, channel_base=8192, channel_max=256)
    config = tiny_config(batch=4096, channel_base=8192, channel_max=256)
    assert estimate_cost(huge, config).flops_per_step > 1e14  # hours, and hundreds of GB
