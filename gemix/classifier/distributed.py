"""Data parallelism and gradient accumulation of a classifier's training."""

from __future__ import annotations

import contextlib

from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from gemix.core.distributed import Workers
from gemix.core.errors import ConfigError


def batch_parts(workers: Workers, batch: int, accumulate: int = 1) -> list[list[int]]:
    """Return the parts of this worker's share of the global batch: indices into the batch.

    They are those that as many workers as there are parts would have.

    Args:
        batch: images in one step, over all workers.
        accumulate: number of parts of each worker's share (``classifier.accumulate``).

    Raises:
        ConfigError: if the batch cannot be shared evenly, two images each or more, of which batch
            normalization needs as many.
    """
    parts, first = workers.size * accumulate, workers.rank * accumulate
    if batch % parts or batch < 2 * parts:
        shared, remedy = f"{workers.size} workers", "another compute.workers"
        if accumulate > 1:
            shared = f"{shared} in {accumulate} parts each"
            remedy = "another compute.workers or classifier.accumulate"
        raise ConfigError(
            f"classifier.batch {batch} cannot be shared evenly by {shared}; choose a multiple of "
            f"{parts} from {2 * parts} on, or {remedy}"
        )
    return [list(range(number, batch, parts)) for number in range(first, first + accumulate)]


def keep_statistics_pace(network: nn.Module, accumulate: int) -> None:
    """Let running batch statistics move as far in `accumulate` forward passes as they did in one.

    The weight of the past after n passes is (1 - momentum)^n.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.momentum is not None:
            module.momentum = 1 - (1 - module.momentum) ** (1 / accumulate)


def data_parallel(network: nn.Module, workers: Workers) -> nn.Module:
    """Wrap the network so that gradients are averaged and batch statistics are of the whole batch.

    Batch statistics are synchronized on GPUs only, since PyTorch has no SyncBatchNorm for CPUs:
    there each worker normalizes by its own share. With ``classifier.accumulate`` they are of one
    part of every worker.
    """
    if workers.size == 1:
        return network
    if next(network.parameters()).is_cuda:
        network = convert_sync_batchnorm(network)
    return DistributedDataParallel(network)


def averaged_gradients(
    network: nn.Module, averaged: bool
) -> contextlib.AbstractContextManager[None]:
    """Return a context of one forward and backward pass of a network of :func:`data_parallel`.

    Args:
        averaged: whether the pass averages its gradients, and what earlier ones left, over the
            workers; else it adds to what this worker has.
    """
    if averaged or not isinstance(network, DistributedDataParallel):
        return contextlib.nullcontext()
    return network.no_sync()
