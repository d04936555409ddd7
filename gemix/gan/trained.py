"""The finished generator of a training: written once, sampled from ever after."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gemix.errors import CheckpointError
from gemix.gan.checkpoint import Origin
from gemix.gan.generator import Architecture, Generator
from gemix.gan.state import TrainingState
from gemix.gan.weights import read_weights, write_weights

if TYPE_CHECKING:  # at run time any store of files will do
    from gemix.storage import Store

MARKER = "generator.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedGenerator:
    """A generator ready to sample from.

    Attributes:
        network: on the CPU, in evaluation mode.
        classes: the names of its K classes.
        checksum: of its weights; synthetic images carry it.
        kimg: how long it was trained.
    """

    network: Generator
    classes: tuple[str, ...]
    checksum: str
    kimg: float


def save_generator(store: Store, state: TrainingState, origin: Origin) -> str:
    """Writes the averaged generator; the marker ``generator.json`` last. Returns its checksum."""
    checksum = write_weights(store, "generator", state.generator_ema.state_dict())
    kimg = state.step * origin.config.batch / 1000
    store.write_json(MARKER, {"sha256": checksum, "kimg": kimg} | origin.to_json())
    return checksum


def load_generator(store: Store) -> TrainedGenerator:
    """Reads the finished generator of a training.

    Raises:
        CheckpointError: if there is none, or it is damaged.
    """
    if not store.exists(MARKER):
        raise CheckpointError(
            f"{store.url}: no generator.json, so no finished training; run gemix train-gan first"
        )
    values = store.read_json(MARKER)
    network = Generator(Architecture(**values["architecture"]))
    network.load_state_dict(read_weights(store, "generator", values["sha256"]))
    return TrainedGenerator(
        network=network.requires_grad_(False).eval(),
        classes=tuple(values["classes"]),
        checksum=values["sha256"],
        kimg=values["kimg"],
    )
