"""The stages of a training: an unconditional one before it, and what each starts from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch

from gemix.gan.checkpoints.checkpoint import TrainingSpec, checkpoints, load_checkpoint
from gemix.gan.checkpoints.generator_io import saved_architecture
from gemix.gan.checkpoints.transfer import PretrainedWeights, load_pretrained
from gemix.gan.training.registry import new_state
from gemix.gan.training.state import TrainingState

if TYPE_CHECKING:  # any object with the methods of a store will do
    from gemix.io.storage import Store

# reads the weights to start from; None: random ones
FirstWeights = Callable[[], PretrainedWeights] | None


def pretraining_spec(spec: TrainingSpec) -> TrainingSpec:
    """Return the unconditional stage before a training: the same networks without labels.

    It learns the distribution of all scans; the classes are learned from its weights.
    """
    config = spec.config
    return dataclasses.replace(
        spec,
        architecture=dataclasses.replace(spec.architecture, label_dim=0),
        config=dataclasses.replace(config, kimg=config.pretrain_kimg, pretrain_kimg=0.0),
        classes=(),
    )


def inherit_conv_clamp(spec: TrainingSpec, networks: Iterable[Store]) -> TrainingSpec:
    """Return the spec with the `conv_clamp` of the networks that it starts from.

    Weights that were trained with a clamp make other images without it, and no setting holds it.

    Args:
        networks: directories of trainings or imported networks; the first that holds any counts.
    """
    for store in networks:
        if (saved := saved_architecture(store)) is not None:
            clamped = dataclasses.replace(spec.architecture, conv_clamp=saved.conv_clamp)
            return dataclasses.replace(spec, architecture=clamped)
    return spec


def resume_or_start(
    store: Store,
    spec: TrainingSpec,
    device: torch.device,
    first_weights: FirstWeights = None,
) -> TrainingState:
    """Return the state of the newest checkpoint, or a new one where there is none.

    Args:
        first_weights: reads the weights that a new state starts from; by default they are random,
            a function of ``gan.seed``.
    """
    names = checkpoints(store)
    if names:
        return load_checkpoint(store, names[-1], spec, device)
    state = new_state(spec.architecture, spec.config, device)
    if first_weights is not None:
        load_pretrained(state, first_weights())
    return state
