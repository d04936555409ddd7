"""The images of a GAN training: held in memory where they fit, else streamed from the shards."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from gemix.core.device import image_memory
from gemix.core.distributed import Workers
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.partial_reading import read_rows, read_soft_labels
from gemix.data.shards.reading import read_images
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import InMemoryDataset, TrainingDataset
from gemix.gan.data.gloo_channel import GlooChannel
from gemix.gan.data.shuffle_order import ShuffleOrder
from gemix.gan.data.streaming import ShardReader, StreamingDataset
from gemix.gan.models.architecture import Architecture
from gemix.io.storage import Store
from gemix.steps.runtime.executor import MapUnordered, WorkerContext

log = logging.getLogger("gemix.train-gan")


def gan_architecture(config: GanConfig, data: Manifest) -> Architecture:
    """Return the networks that make images such as a set has, of its classes."""
    return config.architecture(
        resolution=data.resolution, img_channels=data.channels, label_dim=len(data.classes)
    )


def open_training_data(
    config: GanConfig,
    url: str,
    device: torch.device,
    context: WorkerContext,
    *,
    readers: int = 1,
    verbose: bool = False,
) -> TrainingDataset:
    """Open the train split of a shard set for one worker of a training.

    Which reader it is makes no difference to the batches: both follow the same order. The images
    are held in memory if they fit ``gan.data_memory_gb``, or as ``gan.data_loading`` says.

    Args:
        url: the shard set.
        readers: shards read at once when streaming.
        verbose: log which reader was chosen, and why.

    Raises:
        DataError: for a set that is unfinished, damaged or without a train split.
    """
    store = Store(url)
    manifest = Manifest.load(store)
    shape, shards = manifest.image_shape, manifest.shards_of("train")
    image_bytes = int(np.prod(shape))
    window_rows = int(config.shuffle_gb * 1e9 / image_bytes)
    classes = None
    if config.class_balance:
        classes = read_soft_labels(store, manifest, "train").argmax(axis=1)
    order = ShuffleOrder(
        config.seed,
        [shard.rows for shard in shards],
        window_rows,
        classes=classes,
        balance=config.class_balance,
    )
    size_gb = order.total * image_bytes / 1e9
    allowed_gb = config.data_memory_gb
    if allowed_gb is None:
        allowed_gb = min(image_memory(device), context.image_memory) / 1e9
    stream = config.data_loading == "stream" or (
        config.data_loading == "auto" and size_gb > allowed_gb
    )
    # what one worker has to do all do, also those of machines with more memory: they read together
    stream = bool(
        Workers.from_process_group().all_reduce_sum(torch.tensor(float(stream), device=device))
    )
    if verbose:
        how = f"streamed, {config.shuffle_gb:g} GB at a time" if stream else f"in memory ({device})"
        why = f"gan.data_loading={config.data_loading}, gan.data_memory_gb={allowed_gb:.3g}"
        log.info("%d images, %.3g GB, %s; %s", order.total, size_gb, how, why)
    if not stream:
        real = read_images([url], "train")
        return InMemoryDataset(real.images, real.soft_labels, config.seed, device, order=order)
    labels = read_soft_labels(store, manifest, "train")
    reader = shard_reader(store, manifest, context.map_unordered, readers)
    channel = GlooChannel.from_process_group()
    return StreamingDataset(labels, shape, reader, order, device, channel)


def shard_reader(
    store: Store, manifest: Manifest, map_unordered: MapUnordered, readers: int = 1
) -> ShardReader:
    """Return a function that reads rows of the train shards, `readers` shards at once."""
    shards = manifest.shards_of("train")

    def read(wanted: Mapping[int, np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        def load(number: int) -> tuple[int, np.ndarray]:
            return number, read_rows(store, manifest, shards[number], wanted[number])

        return map_unordered(load, list(wanted), min(readers, len(wanted)))

    return read
