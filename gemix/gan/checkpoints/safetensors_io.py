"""Tensors in a safetensors file with a checksum: data only, nothing in it is ever run."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from gemix.core.errors import CheckpointError, DataError, GemixError
from gemix.gan.models.architecture import Architecture

if TYPE_CHECKING:  # at run time any store of files will do
    from gemix.io.storage import Store


def write_weights(store: Store, name: str, tensors: dict[str, Tensor]) -> str:
    """Writes ``<name>.safetensors``, whole or not at all; returns its SHA-256."""
    # a clone each: safetensors refuses tensors that share memory
    data = save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})
    store.write_bytes(f"{name}.safetensors", data)
    return hashlib.sha256(data).hexdigest()


def read_weights(store: Store, name: str, sha256: str, remedy: str) -> dict[str, Tensor]:
    """Reads ``<name>.safetensors``, on the CPU.

    Args:
        sha256: what its JSON file says.
        remedy: what to do if the file is not the one that was written, for the message.

    Raises:
        CheckpointError: if it is missing or not the one that was written.
        StoreError: if the store is away.
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


@contextlib.contextmanager
def wrap_checkpoint_errors(where: str, remedy: str) -> Iterator[None]:
    """Makes of whatever fails on a file that is not as it was written one error with a remedy.

    Raises:
        CheckpointError: naming the file.
    """
    try:
        yield
    except DataError as error:  # names the file itself
        raise CheckpointError(f"{error}; {remedy}") from error
    except GemixError:
        raise
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(f"{where}: not as gemix wrote it ({why}); {remedy}") from error


def validate_state_dict(
    network: type[nn.Module],
    architecture: Architecture,
    state: Mapping[str, Tensor],
    name: str,
    remedy: str = "only networks of the same kind can be imported",
) -> dict[str, Tensor]:
    """The weights that the network takes, float32.

    Args:
        name: of the network, for messages.
        remedy: what to do if they do not fit, for messages.

    Raises:
        CheckpointError: naming the weights that are missing, left over or of another shape.
    """
    with torch.device("meta"):  # shapes alone: sizes from a file are not to be trusted with memory
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
