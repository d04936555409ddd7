"""The state of a training at the end of an epoch, from which an interrupted one goes on.

It is one safetensors file, so that reading it executes nothing: the tensors by number, and the tree
that holds them as JSON in the metadata.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from gemix.io.storage import Store

CHECKPOINT = "checkpoint.safetensors"
_VERSION = 1

log = logging.getLogger("gemix.classifier")


class Checkpoints:
    """The last checkpoint of one training, in the directory that its classifier will be in."""

    def __init__(self, store: Store, digest: str, *, seconds: float = 300.0):
        """Say where it is and whose it is.

        Args:
            digest: of all that the result of the training depends on.
            seconds: least time between two checkpoints, and to the first.
        """
        self.store, self.digest, self.seconds = store, digest, seconds
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Return whether it is time to save."""
        return time.monotonic() - self._last >= self.seconds

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint.

        Args:
            state: a tree of mappings, lists, tensors, dtypes, text, numbers and None.
        """
        tensors: dict[str, Tensor] = {}
        tree = _encode(state, tensors)
        about = {"version": str(_VERSION), "digest": self.digest, "state": json.dumps(tree)}
        self.store.write_bytes(CHECKPOINT, safetensors.torch.save(tensors, about))
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the state that was saved last, on the CPU; None if this training saved none.

        That of other settings or images, of another format, or a damaged one is passed over.
        """
        if not self.store.exists(CHECKPOINT):
            return None
        data = self.store.read_bytes(CHECKPOINT)
        try:
            tensors = safetensors.torch.load(data)
            about = _metadata(data)
            if (about["version"], about["digest"]) == (str(_VERSION), self.digest):
                return _decode(json.loads(about["state"]), tensors)
            reason = "it is of other settings, images or another format"
        except (SafetensorError, KeyError, ValueError) as error:
            reason = f"it is damaged: {error}"
        log.warning("%s/%s: the training starts again, %s", self.store.url, CHECKPOINT, reason)
        return None

    def remove(self) -> None:
        """Delete the checkpoint of a training that has ended."""
        if self.store.exists(CHECKPOINT):
            self.store.delete(CHECKPOINT)


def _metadata(data: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file, whose header has its length before it."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]).get("__metadata__", {})


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a tree as JSON takes it; its tensors are added to `tensors`."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):  # as pairs, since keys may be numbers
        return {"mapping": [[key, _encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_encode(item, tensors) for item in value]
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    return value


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the tree that :func:`_encode` was given; tuples are lists now."""
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "dtype" in value:
        return getattr(torch, value["dtype"])
    return {key: _decode(item, tensors) for key, item in value["mapping"]}
