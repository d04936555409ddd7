"""The whole state of a training: everything that the next step depends on."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor, nn

from gemix.core.rng import Stream, sample_rng
from gemix.gan.config import GanConfig
from gemix.gan.models.architecture import Architecture
from gemix.gan.models.base import ImageGenerator
from gemix.gan.models.registry import METHODS, AdamSettings

ADAM_EPS = 1e-8


@dataclasses.dataclass(kw_only=True)
class TrainingState:
    """Networks, optimizers and running values after `step` batches.

    There are no random generators in it: randomness is a function of the seed and of `step`, and
    so is the place in the data.

    Attributes:
        augment_p: probability p of the augmentations.
        pl_mean: running mean of the path lengths, scalar.
        sign_sum, sign_count: sum and number of sign D(real) since p was last adapted, on average
            over the workers.
        skipped_updates: optimizer steps dropped so far because gradients were not finite.
        failing_steps: steps in a row, up to the last, with such a drop.
        precision: what convolutions compute in; `auto` until the first step settles it, since a
            training that goes on elsewhere must not compute in another one.
        fallback_level: how many settings were eased after a divergence
            (:mod:`gemix.gan.training.divergence`).
    """

    generator: ImageGenerator
    discriminator: nn.Module
    generator_ema: ImageGenerator
    g_optimizer: torch.optim.Adam
    d_optimizer: torch.optim.Adam
    pl_mean: Tensor
    sign_sum: Tensor
    precision: str
    sign_count: int = 0
    augment_p: float = 0.0
    step: int = 0
    skipped_updates: int = 0
    failing_steps: int = 0
    fallback_level: int = 0

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks by name."""
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_ema": self.generator_ema,
        }

    @property
    def optimizers(self) -> dict[str, torch.optim.Adam]:
        """The optimizers by name."""
        return {"g_optimizer": self.g_optimizer, "d_optimizer": self.d_optimizer}

    @torch.no_grad()
    def update_ema(self, batch: int, ema_kimg: float, ema_rampup: float | None) -> None:
        """Moves the averaged generator by one batch.

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


def new_state(architecture: Architecture, config: GanConfig, device: torch.device) -> TrainingState:
    """The state of `config.method` before the first step, a function of `config.seed`."""
    method = METHODS[config.method]
    with torch.random.fork_rng(devices=[]):
        seed = int(sample_rng(config.seed, Stream.INIT).integers(2**63))
        torch.manual_seed(seed)
        generator, discriminator = (
            method.generator(architecture),
            method.discriminator(architecture),
        )
    generator.to(device), discriminator.to(device)
    g_settings, d_settings = method.adam(config, architecture.resolution)
    return TrainingState(
        generator=generator,
        discriminator=discriminator,
        generator_ema=copy.deepcopy(generator).requires_grad_(False).eval(),
        g_optimizer=_adam(generator, g_settings),
        d_optimizer=_adam(discriminator, d_settings),
        pl_mean=torch.zeros([], device=device),
        sign_sum=torch.zeros([], device=device),
        augment_p=config.augment_p or 0.0,
        precision=config.precision,
    )


def _adam(network: nn.Module, settings: AdamSettings) -> torch.optim.Adam:
    # initial_lr is what easing (gemix.gan.training.divergence) reckons from
    group = {"params": list(network.parameters()), "initial_lr": settings.lr}
    return torch.optim.Adam([group], lr=settings.lr, betas=settings.betas, eps=ADAM_EPS, fused=True)
