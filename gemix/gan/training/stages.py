"""The stages of a training: what it starts from, and an unconditional one before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch

from gemix.gan.checkpoints.checkpoint import TrainingSpec, checkpoints, load_checkpoint
from gemix.gan.checkpoints.generator_io import saved_architecture
from gemix.gan.checkpoints.transfer import Weights, load_pretrained
from gemix.gan.training.state import TrainingState, new_state

if TYPE_CHECKING:  # at run time any store of files will do
    from gemix.io.storage import Store

FirstWeights = Callable[[], Weights] | None  # what a new training starts from; None: new weights


def pretraining(origin: TrainingSpec) -> TrainingSpec:
    """The unconditional stage before a training: the same networks without labels.

    The distribution of all scans is learned first, the classes then, from its weights.
    """
    config = origin.config
    return dataclasses.replace(
        origin,
        architecture=dataclasses.replace(origin.architecture, label_dim=0),
        config=dataclasses.replace(config, kimg=config.pretrain_kimg, pretrain_kimg=0.0),
        classes=(),
    )


def inherit_conv_clamp(origin: TrainingSpec, networks: Iterable[Store]) -> TrainingSpec:
    """The origin with the bound of the convolutions, `conv_clamp`, of networks from before.

    Weights that were trained with a bound make other images without it, and no setting knows it.

    Args:
        networks: directories of trainings or imported networks; the first that holds any counts.
    """
    for store in networks:
        if (saved := saved_architecture(store)) is not None:
            bounded = dataclasses.replace(origin.architecture, conv_clamp=saved.conv_clamp)
            return dataclasses.replace(origin, architecture=bounded)
    return origin


def resume_or_start(
    store: Store,
    origin: TrainingSpec,
    device: torch.device,
    first_weights: FirstWeights = None,
) -> TrainingState:
    """The state of the newest checkpoint, or a new one where there is none.

    Args:
        first_weights: what a new state starts from; by default new weights, a function of
            ``gan.seed``.
    """
    names = checkpoints(store)
    if names:
        return load_checkpoint(store, names[-1], origin, device)
    state = new_state(origin.architecture, origin.config, device)
    if first_weights is not None:
        load_pretrained(state, first_weights())
    return state


def weights_of(state: TrainingState) -> Weights:
    """The weights of a state, for the next stage to start from."""
    return Weights(
        generator=state.generator.state_dict(),
        generator_ema=state.generator_ema.state_dict(),
        discriminator=state.discriminator.state_dict(),
    )
