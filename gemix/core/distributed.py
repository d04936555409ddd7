"""The workers of a training: ranks and collective operations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
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

    def all_reduce_async(self, value: Tensor) -> dist.Work:
        """Begin to sum a tensor over the workers, in place; the sum is there after ``wait()``."""
        return dist.all_reduce(value, async_op=True)

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

    def differing(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Return the names of the tensors that are not, bit for bit, those of rank 0 everywhere.

        Workers exchange one checksum a tensor.

        Args:
            tensors: with the same names, shapes and dtypes on every worker, on one device.
        """
        if self.size == 1 or not tensors:
            return []
        own = torch.stack([_checksum(tensor) for tensor in tensors.values()])
        first = own.clone()
        dist.broadcast(first, src=0)
        differs = self.all_reduce_sum((own != first).to(torch.int32)).tolist()
        return [name for name, count in zip(tensors, differs, strict=True) if count]


class AsyncFlag:
    """A boolean of rank 0 that all workers learn one call later, without waiting for it.

    It travels between the hosts, so that no GPU takes part, and by the next call it has arrived. A
    single worker knows it at once. All workers create it together.
    """

    def __init__(self, workers: Workers):
        # a group of its own, since the messages of one group must not interleave
        self._group = dist.new_group(backend="gloo") if workers.size > 1 else None
        self._flag = torch.zeros(1)
        self._work: dist.Work | None = None

    def exchange(self, value: bool) -> bool:
        """Begin to tell rank 0's value; return that of the call before, False in the first."""
        if self._group is None:
            return value
        if self._work is not None:
            self._work.wait()
        told = bool(self._flag)
        self._flag = torch.tensor([float(value)])
        self._work = dist.broadcast(self._flag, src=0, group=self._group, async_op=True)
        return told


def _checksum(tensor: Tensor) -> Tensor:
    """Return a weighted sum of the words of a tensor, which wraps: int64 scalar on its device."""
    words = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    words = words.view(torch.uint8 if len(words) % 4 else torch.int32).to(torch.int64)
    return (words * (torch.arange(len(words), device=words.device) % 8191 + 1)).sum()
