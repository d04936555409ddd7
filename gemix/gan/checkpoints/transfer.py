"""Start a training from the weights of another one.

Weights are copied by name and shape. Two differences are bridged so that the new generator makes
the images of the old one at the start: a mapping network that gains a label (its part of the first
layer starts at zero) or loses it, and another resolution, of which the common blocks are copied.
What has no counterpart, such as the embedding of another number of classes or the discriminator's
label projection, starts from new weights. Optimizers, the augmentation probability and the running
means always start anew. `conv_clamp` is no weight: the new networks have to be built with that of
the old ones (:func:`gemix.gan.training.stages.inherit_conv_clamp`).
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
class PretrainedWeights:
    """State dictionaries of a trained pair; the discriminator's may be missing."""

    generator: Mapping[str, Tensor]
    generator_ema: Mapping[str, Tensor]
    discriminator: Mapping[str, Tensor] | None = None

    @classmethod
    def from_state(cls, state: TrainingState) -> PretrainedWeights:
        """Return the weights of a training's networks."""
        return cls(**{name: network.state_dict() for name, network in state.networks.items()})


@torch.no_grad()
def load_pretrained(state: TrainingState, weights: PretrainedWeights) -> list[str]:
    """Copy the weights of another training to a new state.

    Args:
        state: before its first step; changed in place.

    Returns:
        Names of the weights that keep their initial values, under ``generator.`` and
        ``discriminator.``.

    Raises:
        CheckpointError: if none of the generator's weights fits.
    """
    kept = _copy_matching(state.generator, weights.generator, "generator")
    if len(kept) == len(list(state.generator.state_dict())):
        raise CheckpointError(
            "none of the weights to start from fits the new generator; gan.channel_base, "
            "gan.channel_max, gan.z_dim and gan.w_dim must be those of the old one"
        )
    _copy_matching(state.generator_ema, weights.generator_ema, "generator")
    return kept + _copy_matching(state.discriminator, weights.discriminator or {}, "discriminator")


def _copy_matching(network: nn.Module, source: Mapping[str, Tensor], prefix: str) -> list[str]:
    """Copy the weights that fit; return the prefixed names of those that do not."""
    kept = []
    for name, target in network.state_dict().items():
        if name not in source:
            kept.append(f"{prefix}.{name}")
        elif source[name].shape == target.shape:
            target.copy_(source[name])
        elif name == FIRST_LAYER and source[name].shape[0] == target.shape[0]:
            _copy_latent_columns(target, source[name])
        else:
            kept.append(f"{prefix}.{name}")
    return kept


def _copy_latent_columns(target: Tensor, source: Tensor) -> None:
    """Copy the columns of z, which come first; set those of the label embedding to zero."""
    common = min(source.shape[1], target.shape[1])
    target.zero_()
    # equalized learning rate divides by the root of the number of inputs, which has changed
    target[:, :common] = source[:, :common] * math.sqrt(target.shape[1] / source.shape[1])
