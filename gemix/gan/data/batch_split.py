"""Split the global batch between the workers of a training."""

from __future__ import annotations

import math

import numpy as np

from gemix.core.distributed import Workers
from gemix.core.errors import ConfigError


def local_indices(workers: Workers, batch: int, group: int, shrink: int = 1) -> list[int]:
    """Return this worker's indices into the global batch, or into a subset of it.

    The groups of the minibatch standard deviation, indices m, m + M, m + 2M, … with M = batch /
    group, stay on one worker, so that any number of workers computes the same. A subset takes fewer
    of each group first, and fewer groups where that is not enough.

    Args:
        batch: size of the global batch.
        group: size of a group (``gan.mbstd_group_size``).
        shrink: the subset has batch / shrink samples (``gan.pl_batch_shrink``).

    Raises:
        ConfigError: if the groups cannot be shared evenly.
    """
    group = min(group, batch)
    groups = batch // group
    if groups % workers.size:
        raise ConfigError(
            f"gan.batch {batch} makes {groups} groups of {group}, which {workers.size} workers "
            "cannot share evenly; choose a batch of a multiple of "
            f"{group * workers.size} or another compute.workers"
        )
    share = groups // workers.size
    of_each = math.gcd(group, shrink)
    of_groups = shrink // of_each
    if workers.size > 1 and share % of_groups:
        raise ConfigError(
            f"gan.pl_batch_shrink {shrink} takes one in {of_groups} of {groups} groups, which "
            f"{workers.size} workers cannot share evenly; choose a divisor of {group} or another "
            "compute.workers"
        )
    table = np.arange(batch).reshape(group, groups)[: group // of_each]
    return (
        table[:, workers.rank * share : (workers.rank + 1) * share : of_groups].flatten().tolist()
    )
