"""What the workers of one training tell each other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from gemix.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Workers:
    """This worker's rank among the `size` workers of a training."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Workers:
        """Those of torch.distributed where it is initialized, else one worker."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def positions(self, batch: int, group: int, shrink: int = 1) -> list[int]:
        """This worker's positions in the global batch, or in one part of `shrink` of it.

        The groups of the minibatch standard deviation, positions m, m + M, m + 2M, … with
        M = batch / group, stay whole, so that any number of workers computes the same. A part of
        the batch is a part of each group first, and of the groups where that is not enough.

        Raises:
            ConfigError: if the groups cannot be shared out evenly.
        """
        group = min(group, batch)
        groups = batch // group
        if groups % self.size:
            raise ConfigError(
                f"gan.batch {batch} makes {groups} groups of {group}, which {self.size} workers "
                "cannot share evenly; choose a batch of a multiple of "
                f"{group * self.size} or another compute.workers"
            )
        share = groups // self.size
        of_each = math.gcd(group, shrink)
        of_groups = shrink // of_each
        if self.size > 1 and share % of_groups:
            raise ConfigError(
                f"gan.pl_batch_shrink {shrink} takes one in {of_groups} of {groups} groups, which "
                f"{self.size} workers cannot share evenly; choose a divisor of {group} or another "
                "compute.workers"
            )
        table = np.arange(batch).reshape(group, groups)[: group // of_each]
        mine = table[:, self.rank * share : (self.rank + 1) * share : of_groups]
        return mine.flatten().tolist()

    def average(self, gradients: Sequence[Tensor]) -> None:
        """Replaces every tensor by its mean over the workers, in one message."""
        if self.size == 1:
            return
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, mean in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(mean.view_as(gradient))

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the workers."""
        if self.size == 1:
            return value
        return self.total(value.detach()) / self.size

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the workers."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def first(self, value: bool, device: torch.device) -> bool:
        """What rank 0 says, on all workers."""
        if self.size == 1:
            return value
        said = torch.tensor(float(value), device=device)
        dist.broadcast(said, src=0)
        return bool(said)
