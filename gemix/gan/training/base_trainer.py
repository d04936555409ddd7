"""Base of all trainers: a step is a sequence of phases, each of which trains one network.

A method is a subclass: it names its networks, their optimizers and its phases.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from gemix.core.device import float32_products, resolve_precision, wrap_compile_errors
from gemix.core.distributed import Workers
from gemix.gan.config import GanConfig
from gemix.gan.data.batch_split import BatchPart, batch_parts
from gemix.gan.data.dataset import TrainingDataset
from gemix.gan.losses.registry import ADVERSARIAL_LOSSES
from gemix.gan.models.architecture import Architecture
from gemix.gan.models.base import ImageGenerator
from gemix.gan.training.divergence import DivergenceMonitor
from gemix.gan.training.fallback import apply_fallback
from gemix.gan.training.optimizer_step import OptimizerStep
from gemix.gan.training.state import TrainingState


@dataclasses.dataclass(frozen=True)
class AdamSettings:
    """Learning rate and exponential decay rates of one network's Adam optimizer."""

    lr: float
    betas: tuple[float, float]


class BaseTrainer(abc.ABC):
    """Train both networks step by step.

    Class attributes of a method:
        generator, discriminator: build the networks of an architecture, with new weights from
            PyTorch's random generator.
        learning_rates: the settings of both networks' learning rates, in words.
        hint: the settings that stabilize the method where it diverges, in words; each of them may
            be changed at a resume (:data:`gemix.gan.checkpoints.resume_rules.STABILIZING`).

    Attributes:
        parts: of this worker's share of the global batch, one for each backward pass of a phase.
        dtype: what convolutions compute in.
        adversarial_loss: the losses that ``config.adversarial_loss`` names.
        optimizer_step: the class of the contexts in which phases train a network.
    """

    generator: ClassVar[Callable[[Architecture], ImageGenerator]]
    discriminator: ClassVar[Callable[[Architecture], nn.Module]]
    learning_rates: ClassVar[str]
    hint: ClassVar[str]
    optimizer_step: type[OptimizerStep] = OptimizerStep

    def __init__(
        self, state: TrainingState, data: TrainingDataset, config: GanConfig, workers: Workers
    ):
        self.state, self.data, self.config, self.workers = state, data, config, workers
        self.device = data.device
        if state.precision == "auto":
            state.precision = resolve_precision(self.device, workers)
        self.dtype = apply_fallback(state)
        self.adversarial_loss = ADVERSARIAL_LOSSES[config.adversarial_loss]
        self.parts = batch_parts(config, workers, self.device)
        self._local_indices = [i for part in self.parts for i in part.indices]
        workers.broadcast_tensors(state.all_tensors().values())
        self.monitor = DivergenceMonitor(
            state, list(self.phases(config)), config.max_skipped_steps, self.hint
        )
        self.optimizer_steps: dict[str, OptimizerStep] = {}

    @staticmethod
    @abc.abstractmethod
    def adam(config: GanConfig, resolution: int) -> tuple[AdamSettings, AdamSettings]:
        """Return Adam's settings for the generator and for the discriminator."""

    @staticmethod
    @abc.abstractmethod
    def phases(config: GanConfig) -> dict[str, int]:
        """Return the names of all phases, and how many steps apart each runs; step 0 runs all."""

    @abc.abstractmethod
    def run_phases(self) -> dict[str, Tensor]:
        """Run the phases of one step, with the averaged generator; return the losses by name."""

    def run_step(self) -> dict[str, Tensor]:
        """Train both networks on one batch and count the step.

        Returns:
            Losses and other values to log, by name: scalar tensors, of this worker. `loss_g` and
            `loss_d` are always among them.

        Raises:
            DivergedError: if a phase keeps failing (:mod:`gemix.gan.training.divergence`).
            CompileError: if a phase does not compile (:mod:`gemix.core.device`).
        """
        state = self.state
        tf32 = state.precision == "tf32" and not state.fallback_level
        with wrap_compile_errors("gan.compile"), float32_products(tf32=tf32):
            losses = self.run_phases()
        state.step += 1
        self.monitor.check(is_last=state.step >= self.config.steps)
        return losses

    def generator_step(self, phase: str) -> OptimizerStep:
        """Return the context in which a phase trains the generator."""
        state = self.state
        return self._step(phase, state.generator, state.g_optimizer, others=[state.discriminator])

    def discriminator_step(self, phase: str) -> OptimizerStep:
        """Return the context in which a phase trains the discriminator."""
        state = self.state
        return self._step(
            phase,
            state.discriminator,
            state.d_optimizer,
            others=[state.generator],
            frozen=self.frozen_parameters(),
        )

    def frozen_parameters(self) -> Sequence[nn.Parameter]:
        """Return the parameters of the discriminator that are not trained."""
        return ()

    @property
    def step(self) -> Tensor:
        """The step on the device, int64 [1]: random numbers are drawn there as a function of it."""
        return torch.full((1,), self.state.step, device=self.device)

    def real_parts(self) -> Iterator[tuple[BatchPart, Tensor, Tensor]]:
        """Yield the parts with the step's real images and their labels."""
        sizes = [len(part.indices) for part in self.parts]
        batch = self.data.real_batch(self.state.step, self.config.batch, self._local_indices)
        yield from zip(self.parts, *(values.split(sizes) for values in batch), strict=True)

    def _step(
        self, phase: str, network: nn.Module, optimizer: torch.optim.Optimizer, **fixed
    ) -> OptimizerStep:
        if phase not in self.optimizer_steps:
            self.optimizer_steps[phase] = self.optimizer_step(
                network,
                optimizer,
                self.workers,
                rounds=len(self.parts),
                allreduce_dtype=getattr(torch, self.config.allreduce_precision),
                on_result=lambda applied: self.monitor.record(phase, applied),
                **fixed,
            )
        return self.optimizer_steps[phase]
