"""Data parallelism of a classifier's training."""

from __future__ import annotations

from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gemix.core.distributed import Workers
from gemix.core.errors import ConfigError


def local_indices(workers: Workers, batch: int) -> list[int]:
    """Return this worker's indices into the global batch.

    Raises:
        ConfigError: if the batch cannot be shared evenly, two images each or more.
    """
    if batch % workers.size or batch < 2 * workers.size:
        raise ConfigError(
            f"classifier.batch {batch} cannot be shared evenly by {workers.size} workers; choose "
            f"a multiple of {workers.size} from {2 * workers.size} on, or another compute.workers"
        )
    return list(range(workers.rank, batch, workers.size))


def data_parallel(network: nn.Module, workers: Workers) -> nn.Module:
    """Wrap the network so that gradients are averaged and batch statistics are of the whole batch.

    Batch statistics are synchronized on GPUs only, since PyTorch has no SyncBatchNorm for CPUs:
    there each worker normalizes by its own share.
    """
    if workers.size == 1:
        return network
    if next(network.parameters()).is_cuda:
        network = convert_sync_batchnorm(network)
    return DistributedDataParallel(network)
