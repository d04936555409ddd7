"""Checkpoints: the whole state of a training, in files that run no code when loaded.

Tensors are in safetensors, everything else in JSON. The JSON file is written last and holds the
checksum of the tensors, so a checkpoint is complete or absent. What is saved is every field of
:class:`gemix.gan.training.state.TrainingState`; versions of the JSON are in
:mod:`gemix.gan.checkpoints.format`, what may change at a resume in
:mod:`gemix.gan.checkpoints.resume_rules`.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gemix.core.device import HostCopy, match_memory_format
from gemix.gan.checkpoints.format import FORMAT_VERSION
from gemix.gan.checkpoints.resume_rules import check_same_training
from gemix.gan.checkpoints.safetensors_io import (
    read_metadata,
    read_weights,
    wrap_checkpoint_errors,
    write_weights,
)
from gemix.gan.checkpoints.transfer import PretrainedWeights
from gemix.gan.config import PRECISIONS, GanConfig
from gemix.gan.models.architecture import Architecture
from gemix.gan.training.registry import new_state
from gemix.gan.training.state import TrainingState

if TYPE_CHECKING:  # any object with the methods of a store will do
    from gemix.io.storage import Store


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """Specification of a training: networks, settings, classes and images.

    Attributes:
        data_digest: of the training images and labels.
    """

    architecture: Architecture
    config: GanConfig
    classes: tuple[str, ...]
    data_digest: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values, with the version of the format they are written in."""
        return {
            "format_version": FORMAT_VERSION,
            "architecture": dataclasses.asdict(self.architecture),
            "config": self.config.to_mapping(),
            "classes": list(self.classes),
            "data_digest": self.data_digest,
        }


class StateCopy:
    """A copy of a state on the host, which is written while the training goes on.

    The host does not wait for the GPU to copy; steps that follow come after the copy.
    """

    def __init__(self, state: TrainingState):
        self.step, self.values = state.step, copy.deepcopy(state.values)
        self._tensors = {name: HostCopy(value) for name, value in state.all_tensors().items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors of the state when they are complete."""
        return {name: copied.wait() for name, copied in self._tensors.items()}


def save_checkpoint(store: Store, state: TrainingState | StateCopy, spec: TrainingSpec) -> str:
    """Write the state, completely or not at all, and delete all but the newest checkpoints.

    Returns:
        The checkpoint's name.

    Raises:
        OSError: if it cannot be written (a full disk, say); older checkpoints are as they were.
    """
    if isinstance(state, TrainingState):
        state = StateCopy(state)
    name = f"checkpoint-{state.step:08d}"
    sha256 = write_weights(store, name, state.tensors())
    store.write_json(f"{name}.json", state.values | {"sha256": sha256} | spec.to_json())
    for old in checkpoints(store)[: -spec.config.keep_checkpoints]:
        store.delete(f"{old}.json")
        store.delete(f"{old}.safetensors")
    return name


def checkpoints(store: Store) -> list[str]:
    """Return the names of the complete checkpoints, oldest first."""
    names = [name for name in store.list() if name.startswith("checkpoint-")]
    return [name.removesuffix(".json") for name in names if name.endswith(".json")]


def load_checkpoint(
    store: Store, name: str, spec: TrainingSpec, device: torch.device
) -> TrainingState:
    """Restore the state that was saved, to continue the training of `spec`.

    Settings that were changed since (:mod:`gemix.gan.checkpoints.resume_rules`) are added to the
    state's `setting_changes`.

    Raises:
        CheckpointError: if the checkpoint is damaged, or is of another architecture, data set or
            configuration.
    """
    values, changes = _read(store, name), check_checkpoint(store, name, spec)
    tensors = read_weights(store, name, values["sha256"], _remedy(store, name))
    state = new_state(spec.architecture, spec.config, device)
    with wrap_checkpoint_errors(f"{store.url}/{name}", _remedy(store, name)):
        for key, network in state.networks.items():
            network.load_state_dict(_with_prefix(tensors, key))
        for key, optimizer in state.optimizers.items():
            _load_optimizer(optimizer, _with_prefix(tensors, key))
        for key, initial in state.tensors.items():
            # earlier versions wrote some of them as numbers
            saved = tensors.get(key)
            if saved is None:
                saved = torch.tensor(values["tensors"][key], dtype=initial.dtype)
            setattr(state, key, _fitting(key, saved.to(initial), initial))
        for key, initial in state.values.items():
            setattr(state, key, _validated(key, values[key], initial))
    _apply_changes(state, spec.config, changes)
    return state


def check_resumable(store: Store, spec: TrainingSpec) -> None:
    """Check, from its JSON alone, that the newest checkpoint is of this training.

    Raises:
        CheckpointError: if it is of another one, or damaged. No checkpoint at all is fine.
    """
    for name in checkpoints(store)[-1:]:
        check_checkpoint(store, name, spec)


def check_checkpoint(store: Store, name: str, spec: TrainingSpec) -> list[dict[str, Any]]:
    """Check that a checkpoint is of this training; return the settings that were changed.

    Raises:
        CheckpointError: if it is of another one, or damaged.
    """
    where, values = f"{store.url}/{name}.json", _read(store, name)
    with wrap_checkpoint_errors(where, _remedy(store, name)):
        return check_same_training(where, values, spec.to_json())


def checkpoint_weights(store: Store, name: str) -> PretrainedWeights:
    """Return the networks of a checkpoint of any training, for another one to start from.

    Raises:
        CheckpointError: if it is damaged.
    """
    sha256 = _read(store, name)["sha256"]
    tensors = read_weights(store, name, sha256, _remedy(store, name))
    networks = ("generator", "generator_ema", "discriminator")
    return PretrainedWeights(**{key: _with_prefix(tensors, key) for key in networks})


def checkpoint_spec(store: Store, name: str) -> tuple[TrainingSpec, int]:
    """Return what a checkpoint of any training is of, and its step.

    Raises:
        CheckpointError: if it is damaged.
    """
    values, remedy = _read(store, name), _remedy(store, name)
    with wrap_checkpoint_errors(f"{store.url}/{name}.json", remedy):
        spec = TrainingSpec(
            architecture=Architecture(**values["architecture"]),
            config=GanConfig.from_mapping(values["config"]),
            classes=tuple(values["classes"]),
            data_digest=values["data_digest"],
        )
        return spec, int(values["step"])


def checkpoint_architecture(store: Store, name: str) -> Architecture:
    """Return the architecture of a checkpoint of any training.

    Raises:
        CheckpointError: if it is damaged.
    """
    return Architecture(**_read(store, name)["architecture"])


def _read(store: Store, name: str) -> dict[str, Any]:
    remedy = _remedy(store, name)
    values = read_metadata(store, f"{name}.json", remedy)
    with wrap_checkpoint_errors(f"{store.url}/{name}.json", remedy):
        Architecture(**values["architecture"])
    return values


def _remedy(store: Store, name: str) -> str:
    return (
        f"delete {store.url}/{name}.json to go on from the checkpoint before it, or pass "
        "--overwrite to start over"
    )


def _validated(name: str, value: Any, initial: Any) -> Any:
    """Return a saved value if it has the type of the initial one and makes sense."""
    kinds = (int, float) if type(initial) is float else (type(initial),)
    is_number = type(initial) in (int, float)
    if type(value) not in kinds or (is_number and not 0 <= value < math.inf):
        raise ValueError(f"{name} is {value!r}")
    if name == "precision" and value not in PRECISIONS:
        raise ValueError(f"precision is {value!r}")
    return value


def _fitting(name: str, value: Tensor, initial: Tensor) -> Tensor:
    """Return a saved running value if it has the shape of the initial one and makes sense."""
    if value.shape != initial.shape:
        raise ValueError(f"{name} has the shape {list(value.shape)} and not {list(initial.shape)}")
    if not torch.isfinite(value).all() or (name != "sign_sum" and (value < 0).any()):
        raise ValueError(f"{name} is {value.tolist()}")
    return value


def _apply_changes(state: TrainingState, config: GanConfig, changes: list[dict[str, Any]]) -> None:
    """Record changed settings; they replace the fallbacks, which were made for the old ones."""
    if not changes:
        return
    state.setting_changes += [{"step": state.step} | change for change in changes]
    state.fallback_level, state.phase_failures = 0, torch.zeros_like(state.phase_failures)
    if any(change["setting"] == "precision" for change in changes):
        state.precision = config.precision


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
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
    groups = optimizer.state_dict()["param_groups"]  # learning rates of the current settings
    optimizer.load_state_dict({"state": per_parameter, "param_groups": groups})
    match_memory_format(optimizer)
