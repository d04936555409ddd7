"""The finished generator of a training: written once, sampled from ever after."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gemix.errors import CheckpointError
from gemix.gan.architecture import Architecture
from gemix.gan.checkpoint import Origin, checkpoint_weights, checkpoints
from gemix.gan.config import GanConfig
from gemix.gan.methods import METHODS
from gemix.gan.networks import ImageGenerator
from gemix.gan.state import TrainingState
from gemix.gan.transfer import Weights
from gemix.gan.weights import read_weights, write_weights

if TYPE_CHECKING:  # at run time any store of files will do
    from gemix.storage import Store

MARKER = "generator.json"
RAW, DISCRIMINATOR = "generator_raw", "discriminator"  # what a training can start from


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedGenerator:
    """A generator ready to sample from.

    Attributes:
        network: on the CPU, in evaluation mode.
        classes: the names of its K classes.
        checksum: of its weights; synthetic images carry it.
        kimg: how long it was trained.
    """

    network: ImageGenerator
    classes: tuple[str, ...]
    checksum: str
    kimg: float


def save_generator(store: Store, state: TrainingState, origin: Origin) -> str:
    """Writes the averaged generator; the marker ``generator.json`` last. Returns its checksum."""
    checksum = write_weights(store, "generator", state.generator_ema.state_dict())
    kimg = origin.config.kimg_at(state.step)
    store.write_json(MARKER, {"sha256": checksum, "kimg": kimg} | origin.to_json())
    return checksum


def save_imported(store: Store, weights: Weights, origin: Origin) -> str:
    """Writes a pair of networks from elsewhere as a training leaves its generator.

    Beside it are the generator before averaging and, where there is one, the discriminator; the
    marker holds their checksums by name under `parts`. Returns the generator's checksum.
    """
    parts = {RAW: weights.generator, DISCRIMINATOR: weights.discriminator}
    checksum = write_weights(store, "generator", dict(weights.generator_ema))
    checksums = {
        name: write_weights(store, name, dict(state))
        for name, state in parts.items()
        if state is not None
    }
    values = {"sha256": checksum, "kimg": 0.0, "parts": checksums} | origin.to_json()
    store.write_json(MARKER, values)
    return checksum


def load_weights(store: Store) -> Weights:
    """The networks of a training's directory, or of an imported one, for another to start from.

    Raises:
        CheckpointError: if there are none, or they are damaged.
    """
    if names := checkpoints(store):
        return checkpoint_weights(store, names[-1])
    values = store.read_json(MARKER) if store.exists(MARKER) else {}
    if "parts" not in values:
        raise CheckpointError(
            f"{store.url}: holds neither a checkpoint of gemix train-gan nor the networks of gemix "
            "import-stylegan"
        )
    parts = {name: read_weights(store, name, sha256) for name, sha256 in values["parts"].items()}
    return Weights(
        generator=parts[RAW],
        generator_ema=read_weights(store, "generator", values["sha256"]),
        discriminator=parts.get(DISCRIMINATOR),
    )


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
    # a network from elsewhere may have no method in its config: it is of the first one there was
    method = METHODS[values.get("config", {}).get("method", GanConfig.method)]
    network = method.generator(Architecture(**values["architecture"]))
    network.load_state_dict(read_weights(store, "generator", values["sha256"]))
    return TrainedGenerator(
        network=network.requires_grad_(False).eval(),
        classes=tuple(values["classes"]),
        checksum=values["sha256"],
        kimg=values["kimg"],
    )
