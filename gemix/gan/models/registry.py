"""What the methods train, by the name that `gan.method` takes: networks and their optimizers.

What lies around a method is the same for all: data, loop, guard, checkpoints, resuming, sampling.
A new method is its networks and Adam's settings, with an entry here, and its trainer, with one in
:mod:`gemix.gan.training.registry`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from torch import nn

from gemix.gan.config import GanConfig
from gemix.gan.models.architecture import Architecture
from gemix.gan.models.base import ImageGenerator
from gemix.gan.models.cgan import CganDiscriminator, CganGenerator
from gemix.gan.models.discriminator import Discriminator
from gemix.gan.models.generator import Generator


@dataclasses.dataclass(frozen=True)
class AdamSettings:
    """Learning rate and decay rates of one network's optimizer."""

    lr: float
    betas: tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """How the networks of a method and their optimizers are built.

    Attributes:
        generator, discriminator: the networks of an architecture, with new weights from PyTorch's
            random generator.
        adam: settings of the generator's and of the discriminator's optimizer, at a resolution.
    """

    generator: Callable[[Architecture], ImageGenerator]
    discriminator: Callable[[Architecture], nn.Module]
    adam: Callable[[GanConfig, int], tuple[AdamSettings, AdamSettings]]


def stylegan2_adam(config: GanConfig, resolution: int) -> tuple[AdamSettings, AdamSettings]:
    """Settings that make up for the lazily applied regularizers (Karras et al. 2020, appendix B).

    With one regularizer step for each k of the loss, lr and the exponents of beta are multiplied
    by k / (k + 1).
    """

    def lazy(lr: float | None, reg_interval: int | None) -> AdamSettings:
        ratio = reg_interval / (reg_interval + 1) if reg_interval else 1.0
        return AdamSettings(
            config.resolved_lr(lr, resolution) * ratio, (0.0, math.pow(0.99, ratio))
        )

    g_interval = config.g_reg_interval if config.pl_weight else None
    return lazy(config.g_lr, g_interval), lazy(config.d_lr, config.d_reg_interval)


def dcgan_adam(config: GanConfig, resolution: int) -> tuple[AdamSettings, AdamSettings]:
    """Those of DCGAN (Radford et al. 2016, section 4): one rate for both networks, beta1 0.5."""
    settings = AdamSettings(config.cgan_lr, (0.5, 0.999))
    return settings, settings


METHODS = {
    "stylegan2-ada": Method(
        generator=Generator,
        discriminator=Discriminator,
        adam=stylegan2_adam,
    ),
    "cgan": Method(
        generator=CganGenerator,
        discriminator=CganDiscriminator,
        adam=dcgan_adam,
    ),
}
