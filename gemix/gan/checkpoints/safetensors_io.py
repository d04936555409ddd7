"""Tensors in a safetensors file with a checksum: data only, nothing in it is ever executed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from gemix.core.errors import CheckpointError, DataError, GemixError
from gemix.gan.checkpoints.format import migrate
from gemix.gan.models.architecture import Architecture

if TYPE_CHECKING:  # any object with the methods of a store will do
    from gemix.io.storage import Store


def write_weights(store: Store, name: str, tensors: dict[str, Tensor]) -> str:
    """Write ``<name>.safetensors``, completely or not at all; return its SHA-256."""
    # a clone each: safetensors refuses tensors that share memory
    data = save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})
    store.write_bytes(f"{name}.safetensors", data)
    return hashlib.sha256(data).hexdigest()


def read_weights(store: Store, name: str, sha256: str, remedy: str) -> dict[str, Tensor]:
    """Read ``<name>.safetensors`` to the CPU.

    Args:
        sha256: checksum in its JSON file.
        remedy: what to do if the file is not the one that was written, for the message.

    Raises:
        CheckpointError: if it is missing or not the one that was written.
        StoreError: if the store is not available.
    """
    where = f"{store.url}/{name}.safetensors"
    with wrap_checkpoint_errors(where, remedy):
        data = store.read_bytes(f"{name}.safetensors")
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise CheckpointError(
                f"{where}: damaged, its SHA-256 is {found[:12]}… and not {sha256[:12]}… as its "
                f"JSON file says; {remedy}"
            )
        return load(data)


def read_metadata(store: Store, file: str, remedy: str) -> dict[str, Any]:
    """Read the JSON beside weights, in the current version of its format.

    Args:
        remedy: what to do if the file is damaged, for the message.

    Raises:
        CheckpointError: if it is missing, damaged or of a later version.
        StoreError: if the store is not available.
    """
    with wrap_checkpoint_errors(f"{store.url}/{file}", remedy):
        return migrate(dict(store.read_json(file)), f"{store.url}/{file}")


@contextlib.contextmanager
def wrap_checkpoint_errors(where: str, remedy: str) -> Iterator[None]:
    """Raise any error about a file's content as a CheckpointError that names file and remedy.

    Errors that say nothing about the content pass unchanged: gemix's own, and memory that is too
    small.

    Args:
        where: names the file.
        remedy: what to do if the file is not as it was written.

    Raises:
        CheckpointError: naming the file.
    """
    try:
        yield
    except Exception as error:
        if _is_out_of_memory(error):
            raise
        if isinstance(error, DataError):  # names the file itself
            raise CheckpointError(f"{error}; {_remedy_for(error, remedy)}") from error
        if isinstance(error, GemixError):
            raise
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(f"{where}: not as gemix wrote it ({why}); {remedy}") from error


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or one that it was raised from, is about memory."""
    while error is not None:
        # on CPUs PyTorch raises a plain RuntimeError
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or (
            isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
        ):
            return True
        error = error.__cause__
    return False


def _remedy_for(error: DataError, remedy: str) -> str:
    """Return the remedy; that of the disk where the file is there but cannot be read."""
    cause = error.__cause__
    if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
        return "check the permissions and the disk; the file itself may be fine"
    return remedy


def validate_state_dict(
    network: type[nn.Module],
    architecture: Architecture,
    state: Mapping[str, Tensor],
    name: str,
    remedy: str = "only networks of the same kind can be imported",
) -> dict[str, Tensor]:
    """Return the weights that a network takes, float32.

    Args:
        name: of the network, for messages.
        remedy: what to do if they do not fit, for messages.

    Raises:
        CheckpointError: naming the weights that are missing, left over or of another shape.
    """
    with torch.device("meta"):  # no memory: the sizes come from a file and may be absurd
        wanted = {key: value.shape for key, value in network(architecture).state_dict().items()}
    # the public networks carry a copy of the blur filter in layers that never use it
    kept = {k: v for k, v in state.items() if k in wanted or "resample_filter" not in k}
    found = {key: value.shape for key, value in kept.items()}
    wrong = [
        f"{key} is {_shape(found.get(key))}, want {_shape(wanted.get(key))}"
        for key in sorted(wanted.keys() | found.keys())
        if found.get(key) != wanted.get(key)
    ]
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise CheckpointError(
            f"the weights of {name} do not fit: {'; '.join(wrong[:4])}{more}; {remedy}"
        )
    return {key: value.to(torch.float32) for key, value in kept.items()}


def _shape(shape: torch.Size | None) -> list[int] | str:
    return "missing" if shape is None else list(shape)
