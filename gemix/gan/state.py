"""The whole state of a training: everything that the next step depends on."""

from __future__ import annotations

import copy
import dataclasses
import math

import torch
from torch import Tensor, nn

from gemix.gan.config import GanConfig
from gemix.gan.discriminator import Discriminator
from gemix.gan.generator import Architecture, Generator
from gemix.randomness import Stream, sample_rng

ADAM_EPS = 1e-8


@dataclasses.dataclass(kw_only=True)
class TrainingState:
    """Networks, optimizers and running values after `step` batches.

    There are no random generators in it: randomness is a function of the seed and of `step`, and
    so is the place in the data.

    Attributes:
        augment_p: probability p of the augmentations.
        pl_mean: running mean of the path lengths, scalar.
        sign_sum, sign_count: sum and number of sign D(real) since p was last adapted.
    """

    generator: Generator
    discriminator: Discriminator
    generator_ema: Generator
    g_optimizer: torch.optim.Adam
    d_optimizer: torch.optim.Adam
    pl_mean: Tensor
    sign_sum: Tensor
    sign_count: int = 0
    augment_p: float = 0.0
    step: int = 0

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
    """The state before the first step, a function of `config.seed`.

    Adam's settings make up for the lazily applied regularizers (Karras et al. 2020, appendix B):
    with one regularizer step for each k of the loss, lr and the exponents of beta are multiplied
    by k / (k + 1).
    """
    with torch.random.fork_rng(devices=[]):
        seed = int(sample_rng(config.seed, Stream.INIT).integers(2**63))
        torch.manual_seed(seed)
        generator, discriminator = Generator(architecture), Discriminator(architecture)
    generator.to(device), discriminator.to(device)
    g_interval = config.g_reg_interval if config.pl_weight else None
    return TrainingState(
        generator=generator,
        discriminator=discriminator,
        generator_ema=copy.deepcopy(generator).requires_grad_(False).eval(),
        g_optimizer=_adam(generator, config.g_lr, g_interval),
        d_optimizer=_adam(discriminator, config.d_lr, config.d_reg_interval),
        pl_mean=torch.zeros([], device=device),
        sign_sum=torch.zeros([], device=device),
        augment_p=config.augment_p or 0.0,
    )


def _adam(network: nn.Module, lr: float, reg_interval: int | None) -> torch.optim.Adam:
    ratio = reg_interval / (reg_interval + 1) if reg_interval else 1.0
    beta2 = math.pow(0.99, ratio)
    return torch.optim.Adam(
        network.parameters(), lr=lr * ratio, betas=(0.0, beta2), eps=ADAM_EPS, fused=True
    )
