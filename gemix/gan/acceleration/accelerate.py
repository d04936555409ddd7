"""Run phases of a step as whole graphs, as the settings say."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

import torch
from torch import nn

from gemix.gan.acceleration.compile import compile_phase
from gemix.gan.acceleration.cuda_graphs import capture_phase
from gemix.gan.config import GanConfig

P = ParamSpec("P")
R = TypeVar("R")


class Accelerate(Protocol):
    """Turn a phase into a faster one with the same results."""

    def __call__(self, phase: Callable[P, R], trained: nn.Module) -> Callable[P, R]:
        """Return the phase.

        Args:
            phase: a pure function of tensors or None, of the same shapes in each call.
            trained: the network whose parameters the result is differentiated for.

        Returns:
            A function whose results, and gradients of them, live until any phase is called again.
        """


def run_eagerly(phase: Callable[P, R], trained: nn.Module) -> Callable[P, R]:
    """Return the phase as it is: the host launches each operation."""
    return phase


def accelerator(config: GanConfig, device: torch.device) -> Accelerate:
    """Return what ``gan.compile`` and ``gan.cuda_graphs`` ask for on a device."""
    if config.compile:
        return lambda phase, trained: compile_phase(phase, device)
    if config.cuda_graphs and device.type == "cuda":
        pool = torch.cuda.graph_pool_handle()
        return lambda phase, trained: capture_phase(phase, trained, pool)
    return run_eagerly
