"""The finished generator of a training, and networks that another training can start from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gemix.core.config_schema import Location, default_values, marked_fields
from gemix.core.errors import CheckpointError
from gemix.gan.checkpoints.checkpoint import (
    TrainingSpec,
    checkpoint_architecture,
    checkpoint_weights,
    checkpoints,
)
from gemix.gan.checkpoints.safetensors_io import (
    read_metadata,
    read_weights,
    validate_state_dict,
    wrap_checkpoint_errors,
    write_weights,
)
from gemix.gan.checkpoints.transfer import PretrainedWeights
from gemix.gan.config import GanConfig
from gemix.gan.models.architecture import Architecture
from gemix.gan.models.base import ImageGenerator
from gemix.gan.training.registry import METHODS
from gemix.gan.training.state import TrainingState

if TYPE_CHECKING:  # any object with the methods of a store will do
    from gemix.io.storage import Store

MARKER = "generator.json"
REMEDY = (
    f"delete {MARKER} and run gemix train-gan again, which goes on from its newest checkpoint, or "
    "import the networks again"
)
RAW, DISCRIMINATOR = "generator_raw", "discriminator"  # what a training can start from


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorBundle:
    """A generator ready to sample from.

    Attributes:
        network: on the CPU, in evaluation mode.
        classes: the names of its K classes.
        checksum: of its weights; synthetic images carry it.
        kimg: length of its training, in thousands of real images shown.
    """

    network: ImageGenerator
    classes: tuple[str, ...]
    checksum: str
    kimg: float


def save_generator(store: Store, state: TrainingState, spec: TrainingSpec) -> str:
    """Write the averaged generator, its marker ``generator.json`` last; return its checksum."""
    checksum = write_weights(store, "generator", state.generator_ema.state_dict())
    values = {
        "sha256": checksum,
        "kimg": spec.config.kimg_at(state.step),
        "setting_changes": state.setting_changes,
    }
    store.write_json(MARKER, values | spec.to_json())
    return checksum


def save_imported(store: Store, weights: PretrainedWeights, spec: TrainingSpec) -> str:
    """Write imported networks as a training writes its generator; return its checksum.

    Beside it are the generator before averaging and, where there is one, the discriminator; the
    marker holds their checksums by name under `parts`.
    """
    parts = {RAW: weights.generator, DISCRIMINATOR: weights.discriminator}
    checksum = write_weights(store, "generator", dict(weights.generator_ema))
    checksums = {
        name: write_weights(store, name, dict(state))
        for name, state in parts.items()
        if state is not None
    }
    values = {"sha256": checksum, "kimg": 0.0, "parts": checksums} | spec.to_json()
    store.write_json(MARKER, values)
    return checksum


def save_pretrained(
    store: Store, weights: PretrainedWeights, spec: TrainingSpec, *, kimg: float
) -> str:
    """Write networks to start from, in float16; return the averaged generator's checksum.

    A training that starts from them takes the averaged generator for both of its own.
    """

    def half(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.half() for name, value in state.items()}

    checksum = write_weights(store, "generator", half(weights.generator_ema))
    checksums = {DISCRIMINATOR: write_weights(store, DISCRIMINATOR, half(weights.discriminator))}
    values = {"sha256": checksum, "kimg": kimg, "parts": checksums} | spec.to_json()
    store.write_json(MARKER, values)
    return checksum


def save_shared(
    store: Store, weights: PretrainedWeights, spec: TrainingSpec, *, kimg: float
) -> str:
    """Write the averaged generator alone, in float16, to make images with; return its checksum.

    A discriminator tells members of its training set from others better than anything else does,
    so it is never handed on; nor is the name of what the training started from, which may be a
    path.
    """
    half = {name: value.half() for name, value in weights.generator_ema.items()}
    checksum = write_weights(store, "generator", half)
    defaults = default_values(GanConfig)
    nowhere = {name: defaults[name] for name in marked_fields(GanConfig, Location)}
    spec = dataclasses.replace(spec, config=dataclasses.replace(spec.config, **nowhere))
    store.write_json(MARKER, {"sha256": checksum, "kimg": kimg} | spec.to_json())
    return checksum


def load_weights(store: Store) -> PretrainedWeights:
    """Read the networks of a training, or imported ones, for another training to start from.

    Raises:
        CheckpointError: if there are none, or they are damaged.
    """
    if names := checkpoints(store):
        return checkpoint_weights(store, names[-1])
    values = _read_marker(store) if store.exists(MARKER) else {}
    if "parts" not in values:
        raise CheckpointError(
            f"{store.url}: holds neither a checkpoint of gemix train-gan nor the networks of gemix "
            "export-gan or import-stylegan; give the directory of one of them"
        )
    with wrap_checkpoint_errors(f"{store.url}/{MARKER}", REMEDY):
        parts = {
            name: read_weights(store, name, sha256, REMEDY)
            for name, sha256 in values["parts"].items()
        }
        if not parts:
            raise ValueError("parts is empty")
        averaged = read_weights(store, "generator", values["sha256"], REMEDY)
        return PretrainedWeights(
            generator=parts.get(RAW, averaged),
            generator_ema=averaged,
            discriminator=parts.get(DISCRIMINATOR),
        )


def saved_architecture(store: Store) -> Architecture | None:
    """Return the architecture of the networks of :func:`load_weights`; None if there are none.

    Raises:
        CheckpointError: if they are damaged.
    """
    if names := checkpoints(store):
        return checkpoint_architecture(store, names[-1])
    if not store.exists(MARKER):
        return None
    values = _read_marker(store)
    with wrap_checkpoint_errors(f"{store.url}/{MARKER}", REMEDY):
        return Architecture(**values["architecture"])


def load_generator(store: Store) -> GeneratorBundle:
    """Read the finished generator of a training.

    Raises:
        CheckpointError: if there is none, or it is damaged.
    """
    if not store.exists(MARKER):
        raise CheckpointError(
            f"{store.url}: no generator.json, so no finished training; run gemix train-gan first, "
            "or name the directory of another generator (synthesis.generator, --gan)"
        )
    values = _read_marker(store)
    with wrap_checkpoint_errors(f"{store.url}/{MARKER}", REMEDY):
        # an imported network may have no config: it is of the default method
        method = METHODS[values.get("config", {}).get("method", GanConfig.method)]
        architecture = Architecture(**values["architecture"])
        weights = read_weights(store, "generator", values["sha256"], REMEDY)
        # before the network is built: sizes that its weights do not have may be absurd
        weights = validate_state_dict(method.generator, architecture, weights, "generator", REMEDY)
        network = method.generator(architecture)
        network.load_state_dict(weights)
        return GeneratorBundle(
            network=network.requires_grad_(False).eval(),
            classes=tuple(values["classes"]),
            checksum=values["sha256"],
            kimg=values["kimg"],
        )


def _read_marker(store: Store) -> dict[str, Any]:
    return read_metadata(store, MARKER, REMEDY)
