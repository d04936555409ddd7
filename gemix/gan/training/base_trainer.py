"""What the trainers of all methods share: a step is made of phases, one network learns in each."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from gemix.core.device import resolve_precision
from gemix.core.distributed import Workers
from gemix.gan.config import GanConfig
from gemix.gan.data.batch_split import local_indices
from gemix.gan.data.dataset import TrainingDataset
from gemix.gan.training.compile import compiler_failures_explained
from gemix.gan.training.divergence import DivergenceMonitor, apply_fallback
from gemix.gan.training.optimizer_step import OptimizerStep
from gemix.gan.training.state import TrainingState


class BaseTrainer(abc.ABC):
    """Takes a training from step to step.

    Attributes:
        remedy: the settings that calm this method where it diverges, in words.
        positions, places: this worker's positions in the global batch, on the host and, as int64
            [n], on the device.
        dtype: what convolutions compute in.
        generator_update, discriminator_update: within one of them, that network learns.
    """

    remedy: ClassVar[str]

    def __init__(
        self, state: TrainingState, data: TrainingDataset, config: GanConfig, workers: Workers
    ):
        self.state, self.data, self.config, self.workers = state, data, config, workers
        self.device = data.device
        if state.precision == "auto":
            state.precision = resolve_precision(self.device, workers)
        self.dtype = apply_fallback(state)
        self.positions = local_indices(workers, config.batch, config.sample_group)
        self.places = torch.tensor(self.positions, device=self.device)
        generator, discriminator = state.generator, state.discriminator
        self.generator_update = OptimizerStep(
            generator, state.g_optimizer, workers, others=[discriminator]
        )
        self.discriminator_update = OptimizerStep(
            discriminator, state.d_optimizer, workers, others=[generator], frozen=self.frozen()
        )
        updates = [self.generator_update, self.discriminator_update]
        self.guard = DivergenceMonitor(updates, config.max_skipped_steps, self.remedy)

    def run_step(self) -> dict[str, Tensor]:
        """Trains both networks on one batch and counts the step.

        Returns:
            What the step has to tell, by name: scalar tensors, of this worker. `loss_g` and
            `loss_d` are always there.

        Raises:
            DivergedError: when steps keep failing (:mod:`gemix.gan.training.divergence`).
            CompileError: when a phase does not compile (:mod:`gemix.gan.training.compile`).
        """
        with compiler_failures_explained():
            values = self.run_phases()
        self.state.step += 1
        self.guard.check(self.state)
        return values

    @abc.abstractmethod
    def run_phases(self) -> dict[str, Tensor]:
        """The phases of one step, the averaged generator included; returns the losses, by name."""

    def frozen(self) -> Sequence[nn.Parameter]:
        """Parameters of the discriminator that stay as they are."""
        return ()

    @property
    def step(self) -> Tensor:
        """The step on the device, int64 [1]: random numbers are drawn there as a function of it."""
        return torch.full((1,), self.state.step, device=self.device)

    def real_batch(self) -> tuple[Tensor, Tensor]:
        """This worker's share of the step's real images and labels."""
        return self.data.real_batch(self.state.step, self.config.batch, self.positions)
