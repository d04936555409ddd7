"""What the workers of a training send each other while they read its images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

T = TypeVar("T")


class GlooChannel:
    """Messages beside those of the training, so that they may be sent while it computes.

    Every worker makes one at the same time, and calls the same methods in the same order.
    """

    def __init__(self):
        # a group of its own: messages of one group must not overtake each other; and in the
        # machine's memory, where the images are read to
        self._group = dist.new_group(backend="gloo")
        self.rank, self.size = dist.get_rank(self._group), dist.get_world_size(self._group)

    @classmethod
    def from_process_group(cls) -> GlooChannel | None:
        """One where there are other workers to exchange with."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            return cls()
        return None

    def all_gather_object(self, value: T) -> list[T]:
        """The small values of all workers, by rank."""
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def all_to_all(self, parts: Sequence[np.ndarray], sizes: Sequence[int]) -> list[np.ndarray]:
        """Sends each worker its part and gives what each has sent.

        Args:
            parts: uint8 of any shape, one a worker by rank.
            sizes: numbers of bytes that come from each.

        Returns:
            uint8 [size] each.
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
