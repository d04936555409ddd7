"""Tensors in a safetensors file with a checksum: data only, nothing in it is ever run."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from safetensors.torch import load, save
from torch import Tensor

from gemix.errors import CheckpointError

if TYPE_CHECKING:  # at run time any store of files will do
    from gemix.storage import Store


def write_weights(store: Store, name: str, tensors: dict[str, Tensor]) -> str:
    """Writes ``<name>.safetensors``, whole or not at all; returns its SHA-256."""
    # a clone each: safetensors refuses tensors that share memory
    data = save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})
    store.write_bytes(f"{name}.safetensors", data)
    return hashlib.sha256(data).hexdigest()


def read_weights(store: Store, name: str, sha256: str) -> dict[str, Tensor]:
    """Reads ``<name>.safetensors``, on the CPU.

    Raises:
        CheckpointError: if the file is not the one that was written.
        DataError: if it cannot be read.
    """
    data = store.read_bytes(f"{name}.safetensors")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(
            f"{store.url}/{name}.safetensors: its checksum is not the one in {name}.json, so the "
            "file is damaged; delete both files to go on without them"
        )
    return load(data)
