"""The workers of a training: ranks and collective operations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Workers:
    """The rank of this process among the `size` workers of a training.

    Methods are collective operations, to be called by all workers in the same order; a single
    worker does not communicate.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def from_process_group(cls) -> Self:
        """Return the workers of torch.distributed, or a single one if it is not initialized."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def all_reduce_grads(self, gradients: Sequence[Tensor]) -> None:
        """Average gradients over the workers, in place and in one all-reduce.

        Args:
            gradients: tensors of any shapes, of one dtype and device; the same on every worker.
        """
        if self.size == 1:
            return
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, mean in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(mean.view_as(gradient))

    def all_reduce_mean(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over the workers, detached."""
        if self.size == 1:
            return value
        return self.all_reduce_sum(value.detach()) / self.size

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over the workers."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def all_gather_rows(self, rows: Tensor, total: int) -> Tensor:
        """Return the rows of all workers, [total, K]; this one has rank, rank + size, …"""
        if self.size == 1:
            return rows
        gathered = rows.new_zeros(total, *rows.shape[1:])
        gathered[self.rank :: self.size] = rows
        dist.all_reduce(gathered)
        return gathered

    def broadcast_bool(self, value: bool, device: torch.device) -> bool:
        """Return the value of rank 0."""
        if self.size == 1:
            return value
        flag = torch.tensor(float(value), device=device)
        dist.broadcast(flag, src=0)
        return bool(flag)

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)
