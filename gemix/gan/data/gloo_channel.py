"""Messages between the workers of a training while they read images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

T = TypeVar("T")


class GlooChannel:
    """Collective operations in host memory, beside those of the training.

    All workers create it together and call the same methods in the same order; a background thread
    may do so while the training computes.
    """

    def __init__(self):
        # a group of its own, since the messages of one group must not interleave
        self._group = dist.new_group(backend="gloo")
        self.rank, self.size = dist.get_rank(self._group), dist.get_world_size(self._group)

    @classmethod
    def from_process_group(cls) -> GlooChannel | None:
        """Return a channel between the workers of torch.distributed; None for a single worker."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            return cls()
        return None

    def all_gather_object(self, value: T) -> list[T]:
        """Return the small values of all workers, by rank."""
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def all_to_all(self, parts: Sequence[np.ndarray], sizes: Sequence[int]) -> list[np.ndarray]:
        """Send a part to each worker and return the parts received, by rank.

        Args:
            parts: uint8 of any shape, one per worker.
            sizes: number of bytes to receive from each worker.

        Returns:
            uint8 [size] per worker.
        """
        sent = np.concatenate([part.reshape(-1) for part in parts])
        received = np.empty(sum(sizes), np.uint8)
        dist.all_to_all_single(
            torch.from_numpy(received),
            torch.from_numpy(sent),
            output_split_sizes=list(sizes),
            input_split_sizes=[part.size for part in parts],
            group=self._group,
        )
        return np.split(received, np.cumsum(sizes)[:-1])
