"""The one checkpoint object: all state of a training, in files that run no code when loaded.

Tensors are in safetensors, everything else in JSON. The JSON file is written last and holds the
checksum of the tensors, so a checkpoint is either whole or not there.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gemix.core.config_schema import operational_fields
from gemix.core.errors import CheckpointError
from gemix.gan.checkpoints.safetensors_io import read_weights, wrap_checkpoint_errors, write_weights
from gemix.gan.checkpoints.transfer import Weights
from gemix.gan.config import PRECISIONS, GanConfig
from gemix.gan.models.architecture import Architecture
from gemix.gan.training.state import TrainingState, new_state

if TYPE_CHECKING:  # at run time any store of files will do
    from gemix.io.storage import Store

# Settings that may differ between the two parts of a resumed training. `compile` is one, so that a
# training whose compiler fails can go on without it; it changes results by rounding alone.
RESUMABLE = ("kimg", *operational_fields(GanConfig))
# Plain numbers of the state; its tensors are gathered by _tensors.
_COUNTERS = (
    "step",
    "augment_p",
    "sign_count",
    "skipped_updates",
    "failing_steps",
    "fallback_level",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """What a training was made of; a checkpoint only continues the same."""

    architecture: Architecture
    config: GanConfig
    classes: tuple[str, ...]
    data_digest: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "architecture": dataclasses.asdict(self.architecture),
            "config": self.config.to_mapping(),
            "classes": list(self.classes),
            "data_digest": self.data_digest,
        }


def save_checkpoint(store: Store, state: TrainingState, origin: TrainingSpec) -> str:
    """Writes the state, whole or not at all, and drops all but the newest checkpoints.

    Returns:
        The checkpoint's name.

    Raises:
        OSError: if it cannot be written (a full disk, say); older checkpoints are as they were.
    """
    name = f"checkpoint-{state.step:08d}"
    sha256 = write_weights(store, name, _tensors(state))
    values = {key: getattr(state, key) for key in _COUNTERS}
    values |= {"precision": state.precision, "sha256": sha256}
    store.write_json(f"{name}.json", values | origin.to_json())
    for old in checkpoints(store)[: -origin.config.keep_checkpoints]:
        store.delete(f"{old}.json")
        store.delete(f"{old}.safetensors")
    return name


def checkpoints(store: Store) -> list[str]:
    """Names of the whole checkpoints, oldest first."""
    names = [name for name in store.list() if name.startswith("checkpoint-")]
    return [name.removesuffix(".json") for name in names if name.endswith(".json")]


def load_checkpoint(
    store: Store, name: str, origin: TrainingSpec, device: torch.device
) -> TrainingState:
    """The state as it was saved.

    Raises:
        CheckpointError: if the checkpoint is damaged, or is of another architecture, data set or
            configuration.
    """
    values = _read(store, name, origin)
    tensors = read_weights(store, name, values["sha256"], _remedy(store, name))
    state = new_state(origin.architecture, origin.config, device)
    with wrap_checkpoint_errors(f"{store.url}/{name}", _remedy(store, name)):
        for key, network in state.networks.items():
            network.load_state_dict(_below(tensors, key))
        for key, optimizer in state.optimizers.items():
            _load_optimizer(optimizer, _below(tensors, key))
        state.pl_mean = tensors["pl_mean"].to(device)
        state.sign_sum = tensors["sign_sum"].to(device)
        for key in _COUNTERS:
            setattr(state, key, _number(key, values[key]))
        state.precision = _precision(values["precision"])
    return state


def check_resumable(store: Store, origin: TrainingSpec) -> None:
    """Makes sure, from its JSON alone, that the newest checkpoint is of this training.

    Raises:
        CheckpointError: if it is of another one, or damaged. No checkpoint at all is fine.
    """
    for name in checkpoints(store)[-1:]:
        _read(store, name, origin)


def checkpoint_weights(store: Store, name: str) -> Weights:
    """The networks alone of a checkpoint of any training, for another one to start from.

    Raises:
        CheckpointError: if it is damaged.
    """
    sha256 = _read(store, name)["sha256"]
    tensors = read_weights(store, name, sha256, _remedy(store, name))
    networks = ("generator", "generator_ema", "discriminator")
    return Weights(**{key: _below(tensors, key) for key in networks})


def checkpoint_architecture(store: Store, name: str) -> Architecture:
    """The architecture of a checkpoint of any training.

    Raises:
        CheckpointError: if it is damaged.
    """
    return Architecture(**_read(store, name)["architecture"])


def _read(store: Store, name: str, origin: TrainingSpec | None = None) -> dict[str, Any]:
    """The JSON of a checkpoint, which is to be of `origin` if that is given."""
    where = f"{store.url}/{name}.json"
    with wrap_checkpoint_errors(where, _remedy(store, name)):
        values = store.read_json(f"{name}.json")
        Architecture(**values["architecture"])
        if origin is not None:
            _check_origin(where, values, origin.to_json())
        return values


def _remedy(store: Store, name: str) -> str:
    return (
        f"delete {store.url}/{name}.json to go on from the checkpoint before it, or pass "
        "--overwrite to start over"
    )


def _number(key: str, value: Any) -> int | float:
    if type(value) not in (int, float) or value < 0:
        raise ValueError(f"{key} is {value!r}")
    return value


def _precision(value: Any) -> str:
    if value not in PRECISIONS:
        raise ValueError(f"precision is {value!r}")
    return value


def _tensors(state: TrainingState) -> dict[str, Tensor]:
    tensors = {"pl_mean": state.pl_mean, "sign_sum": state.sign_sum}
    for key, network in state.networks.items():
        tensors |= {f"{key}.{name}": value for name, value in network.state_dict().items()}
    for key, optimizer in state.optimizers.items():
        for index, slots in optimizer.state_dict()["state"].items():
            tensors |= {f"{key}.{index}.{slot}": value for slot, value in slots.items()}
    return tensors


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{prefix}."): value
        for name, value in tensors.items()
        if name.startswith(f"{prefix}.")
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, slots: dict[str, Tensor]) -> None:
    per_parameter: dict[int, dict[str, Tensor]] = {}
    for name, value in slots.items():
        index, slot = name.split(".")
        per_parameter.setdefault(int(index), {})[slot] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": per_parameter, "param_groups": groups})


def _check_origin(where: str, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    remedy = "use another work directory, or --overwrite to start over"
    if len(saved["classes"]) != len(wanted["classes"]):
        raise CheckpointError(
            f"{where}: was trained on {len(saved['classes'])} classes {saved['classes']}, the data "
            f"has {len(wanted['classes'])} {wanted['classes']}; {remedy}"
        )
    # the digest after the sizes of images, which tell more
    for key in ("classes", "architecture", "data_digest", "config"):
        ours, theirs = saved[key], wanted[key]
        if isinstance(theirs, dict):
            fixed = [name for name in theirs if key != "config" or name not in RESUMABLE]
            ours, theirs = ({k: side.get(k) for k in fixed} for side in (ours, theirs))
        if ours != theirs:
            raise CheckpointError(f"{where}: {_difference(key, ours, theirs)}; {remedy}")


def _difference(key: str, saved: Any, wanted: Any) -> str:
    if key == "data_digest":
        return f"the training images have changed, data_digest was {saved!r}, now {wanted!r}"
    if key == "classes":
        return f"classes were {saved!r}, now {wanted!r}"
    changed = [k for k in wanted if saved[k] != wanted[k]]
    values = ", ".join(f"{k} was {saved[k]!r}, now {wanted[k]!r}" for k in changed)
    return f"{key} changed: {values}"
