"""Split the global batch between the workers of a training, and a worker's share into parts."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from gemix.core.distributed import Workers
from gemix.core.errors import ConfigError
from gemix.gan.config import GanConfig


@dataclasses.dataclass(frozen=True, eq=False)
class BatchPart:
    """A part of a worker's share of the global batch: the samples of one backward pass.

    Attributes:
        indices: into the global batch.
        batch_index: the same on the device, int64 [n].
        path_batch_index: those of them whose path lengths are measured, int64 [m].
    """

    indices: list[int]
    batch_index: Tensor
    path_batch_index: Tensor


def batch_parts(
    config: GanConfig, workers: Workers, device: torch.device | str = "cpu"
) -> list[BatchPart]:
    """Return the `config.accumulate` parts of this worker's share of the global batch.

    The parts of all workers are those that as many workers as there are parts would have, so that
    any number of either computes the same.

    Raises:
        ConfigError: as :func:`local_indices`.
    """
    parts = []
    for part in range(config.accumulate):
        indices, of_paths = (
            local_indices(
                workers, config.batch, config.sample_group, shrink, config.accumulate, part
            )
            for shrink in (1, config.resolved_pl_batch_shrink)
        )
        on_device = (torch.tensor(chosen, device=device) for chosen in (indices, of_paths))
        parts.append(BatchPart(indices, *on_device))
    return parts


def local_indices(
    workers: Workers, batch: int, group: int, shrink: int = 1, accumulate: int = 1, part: int = 0
) -> list[int]:
    """Return the indices of one part of this worker's share of the global batch, or of a subset.

    The groups of the minibatch standard deviation, indices m, m + M, m + 2M, … with M = batch /
    group, stay on one worker, so that any number of workers computes the same. A subset takes fewer
    of each group first, and fewer groups where that is not enough.

    Args:
        batch: size of the global batch.
        group: size of a group (``gan.mbstd_group_size``).
        shrink: the subset has batch / shrink samples (``gan.pl_batch_shrink``).
        accumulate: number of parts of each worker's share (``gan.accumulate``).
        part: which of them.

    Raises:
        ConfigError: if the groups cannot be shared evenly.
    """
    group = min(group, batch)
    groups = batch // group
    parts, number = workers.size * accumulate, workers.rank * accumulate + part
    shared, remedy = f"{workers.size} workers", "another compute.workers"
    if accumulate > 1:
        shared = f"{shared} in {accumulate} parts each"
        remedy = "another compute.workers or gan.accumulate"
    if groups % parts:
        raise ConfigError(
            f"gan.batch {batch} makes {groups} groups of {group}, which {shared} cannot share "
            f"evenly; choose a batch of a multiple of {group * parts} or {remedy}"
        )
    share = groups // parts
    of_each = math.gcd(group, shrink)
    of_groups = shrink // of_each
    if parts > 1 and share % of_groups:
        raise ConfigError(
            f"gan.pl_batch_shrink {shrink} takes one in {of_groups} of {groups} groups, which "
            f"{shared} cannot share evenly; choose a divisor of {group} or {remedy}"
        )
    table = np.arange(batch).reshape(group, groups)[: group // of_each]
    return table[:, number * share : (number + 1) * share : of_groups].flatten().tolist()
