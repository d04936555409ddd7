"""The workers of one classifier's training: who takes which images, and what they share."""

from __future__ import annotations

import dataclasses
from typing import Self

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gemix.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Workers:
    """This worker's rank among the `size` workers of a training."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Self:
        """Those of torch.distributed where it is initialized, else one worker."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def positions(self, batch: int) -> list[int]:
        """This worker's positions in the global batch.

        Raises:
            ConfigError: if the batch cannot be shared evenly, two images each or more.
        """
        if batch % self.size or batch < 2 * self.size:
            raise ConfigError(
                f"classifier.batch {batch} cannot be shared evenly by {self.size} workers; choose "
                f"a multiple of {self.size} from {2 * self.size} on, or another compute.workers"
            )
        return list(range(self.rank, batch, self.size))

    def parallel(self, network: nn.Module) -> nn.Module:
        """The network with averaged gradients, and with batch statistics of the whole batch.

        Batch statistics are synchronized on GPUs only, since PyTorch has no CPU version of it:
        on CPUs each worker normalises by its own share.
        """
        if self.size == 1:
            return network
        if next(network.parameters()).is_cuda:
            network = convert_sync_batchnorm(network)
        return DistributedDataParallel(network)

    def share_buffers(self, network: nn.Module) -> None:
        """Gives every worker rank 0's running statistics."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)

    def gather(self, rows: Tensor, total: int) -> Tensor:
        """All rows [total, K], of which this worker has `rows`: rank, rank + size, ..."""
        if self.size == 1:
            return rows
        everything = rows.new_zeros(total, *rows.shape[1:])
        everything[self.rank :: self.size] = rows
        dist.all_reduce(everything)
        return everything

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the workers."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value / self.size


def default_device() -> torch.device:
    """This process's CUDA device, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
