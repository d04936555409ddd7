"""Starting a training from the weights of another one.

Weights are taken over by name and shape. Two differences are bridged so that the new generator
makes the images of the old one at the start: a mapping network that gains a label (its part of
the first layer starts at zero) or loses it, and other resolutions, of which the common blocks are
taken. What has no counterpart, such as the embedding of another number of classes or the
discriminator's label projection, starts new. Optimizers, the augmentation probability and the
running means always do. The bound of the convolutions is no weight: the new networks have to be
built with that of the old ones (:func:`gemix.gan.training.stages.inherit_conv_clamp`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gemix.core.errors import CheckpointError
from gemix.gan.training.state import TrainingState

FIRST_LAYER = "mapping.fc0.weight"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """State dictionaries of a trained pair; the discriminator's may be missing."""

    generator: Mapping[str, Tensor]
    generator_ema: Mapping[str, Tensor]
    discriminator: Mapping[str, Tensor] | None = None


@torch.no_grad()
def load_pretrained(state: TrainingState, weights: Weights) -> list[str]:
    """Gives a new state the weights of another training.

    Args:
        state: before its first step; changed in place.

    Returns:
        Names of the weights that start new, under ``generator.`` and ``discriminator.``.

    Raises:
        CheckpointError: if the two generators have nothing in common but their names.
    """
    new = _take(state.generator, weights.generator, "generator")
    if len(new) == len(list(state.generator.state_dict())):
        raise CheckpointError(
            "none of the weights to start from fits the new generator; gan.channel_base, "
            "gan.channel_max, gan.z_dim and gan.w_dim must be those of the old one"
        )
    _take(state.generator_ema, weights.generator_ema, "generator")
    return new + _take(state.discriminator, weights.discriminator or {}, "discriminator")


def _take(network: nn.Module, source: Mapping[str, Tensor], prefix: str) -> list[str]:
    """Copies what fits; returns the prefixed names of what does not."""
    new = []
    for name, target in network.state_dict().items():
        if name not in source:
            new.append(f"{prefix}.{name}")
        elif source[name].shape == target.shape:
            target.copy_(source[name])
        elif name == FIRST_LAYER and source[name].shape[0] == target.shape[0]:
            _copy_latent_part(target, source[name])
        else:
            new.append(f"{prefix}.{name}")
    return new


def _copy_latent_part(target: Tensor, source: Tensor) -> None:
    """Copies the columns of z, which come first, and zeroes those of the label embedding."""
    common = min(source.shape[1], target.shape[1])
    target.zero_()
    # equalized learning rate divides by the root of the number of inputs, which has changed
    target[:, :common] = source[:, :common] * math.sqrt(target.shape[1] / source.shape[1])
