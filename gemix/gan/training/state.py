"""The whole state of a training: everything that the next step depends on."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gemix.gan.models.base import ImageGenerator

T = TypeVar("T")


@dataclasses.dataclass(kw_only=True)
class TrainingState:
    """Networks, optimizers and running values after `step` batches.

    This is the one list of a training's state: a checkpoint holds every field
    (:mod:`gemix.gan.checkpoints.checkpoint`), so a new field is saved and restored by its
    declaration here. Give it a default, and the checkpoints from before it a value, by a migration
    in :mod:`gemix.gan.checkpoints.format`. Fields that are neither networks, optimizers nor tensors
    are written as JSON; a number that is negative or not finite does not load.

    Random generators are no part of it: random numbers are a function of the seed and of `step`,
    and so is the position in the data. What a step computes is a tensor on the training's device,
    so that the host does not wait for it; reading one as a number does.

    Attributes:
        pl_mean: running mean of the path lengths, float32 scalar.
        sign_sum, sign_count: sum and number of sign D(real) since p was last adapted, averaged
            over the workers, float32 and int64 scalars.
        augment_p: probability p of the augmentations, float64 scalar.
        skipped_updates: optimizer steps skipped so far because gradients were not finite, int64
            scalar.
        phase_failures: how often in a row, up to now, each phase of the method was skipped, int64
            [phases].
        precision: dtype of the convolutions; `auto` until the first step resolves it, so that a
            training resumed on other hardware keeps the one it began with.
        fallback_level: number of fallbacks applied after divergences
            (:mod:`gemix.gan.training.fallback`).
        setting_changes: settings that were changed at a resume, oldest first: `step`, `setting`,
            `old` and `new` each.
    """

    generator: ImageGenerator
    discriminator: nn.Module
    generator_ema: ImageGenerator
    g_optimizer: torch.optim.Adam
    d_optimizer: torch.optim.Adam
    pl_mean: Tensor
    sign_sum: Tensor
    sign_count: Tensor
    augment_p: Tensor
    skipped_updates: Tensor
    phase_failures: Tensor
    precision: str
    step: int = 0
    fallback_level: int = 0
    setting_changes: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks by name."""
        return self._of_type(nn.Module)

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The optimizers by name."""
        return self._of_type(torch.optim.Optimizer)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The running values that are tensors, by name."""
        return self._of_type(Tensor)

    @property
    def values(self) -> dict[str, Any]:
        """All other fields by name, as JSON writes them."""
        others = self.networks | self.optimizers | self.tensors
        return {name: value for name, value in vars(self).items() if name not in others}

    def all_tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the state by a unique name: running values, weights, moments."""
        found = dict(self.tensors)
        for key, network in self.networks.items():
            found |= {f"{key}.{name}": value for name, value in network.state_dict().items()}
        for key, optimizer in self.optimizers.items():
            for index, slots in optimizer.state_dict()["state"].items():
                found |= {f"{key}.{index}.{slot}": value for slot, value in slots.items()}
        return found

    @property
    def failing_steps(self) -> int:
        """The largest number of consecutive failures of a phase; 0 where all succeed."""
        return int(self.phase_failures.max())

    @torch.no_grad()
    def update_ema(self, batch: int, ema_kimg: float, ema_rampup: float | None) -> None:
        """Move the averaged generator by one batch; buffers are copied.

        The half-life is `ema_kimg`, and early in the training at most `ema_rampup` times the
        images shown so far.
        """
        half_life = ema_kimg * 1000
        if ema_rampup is not None:
            half_life = min(half_life, (self.step + 1) * batch * ema_rampup)
        decay = 0.5 ** (batch / max(half_life, 1e-8))
        averages, weights = self.generator_ema.parameters(), self.generator.parameters()
        torch._foreach_lerp_(list(averages), list(weights), 1 - decay)
        for average, buffer in zip(
            self.generator_ema.buffers(), self.generator.buffers(), strict=True
        ):
            average.copy_(buffer)

    def _of_type(self, kind: type[T]) -> dict[str, T]:
        return {name: value for name, value in vars(self).items() if isinstance(value, kind)}
