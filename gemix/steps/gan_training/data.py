"""The images of a GAN training: held in memory where they fit, else streamed with Ray Data."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import ray.data
import torch
from ray.data import TaskPoolStrategy

from gemix.core.distributed import Workers
from gemix.core.errors import DataError, GemixError
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.partial_reading import read_rows, read_soft_labels
from gemix.data.shards.reading import read_images
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import InMemoryDataset, TrainingDataset
from gemix.gan.data.gloo_channel import GlooChannel
from gemix.gan.data.shuffle_order import ShuffleOrder
from gemix.gan.data.streaming import ShardReader, StreamingDataset
from gemix.io.storage import Store

SHARE_OF_MEMORY = 0.25  # of the device and of the machine; the rest is for the training


def open_training_data(
    config: GanConfig,
    url: str,
    device: torch.device,
    *,
    local_workers: int = 1,
    readers: int = 1,
    say: bool = False,
) -> TrainingDataset:
    """The train split of a shard set, for one worker of a training.

    Which reader it is makes no difference to the batches: both follow the same order. The images
    are held in memory if they fit ``gan.data_memory_gb``, or as ``gan.data`` says.

    Args:
        url: the shard set.
        local_workers: workers of the training on this machine, this one included.
        readers: shards read at once when streaming.
        say: whether to print which reader was chosen, and why.

    Raises:
        DataError: for a set that is unfinished, damaged or without a train split.
    """
    store = Store(url)
    manifest = Manifest.load(store)
    shape, shards = manifest.image_shape, manifest.shards_of("train")
    image_bytes = int(np.prod(shape))
    window_rows = int(config.shuffle_gb * 1e9 / image_bytes)
    order = ShuffleOrder(config.seed, [shard.rows for shard in shards], window_rows)
    size_gb = order.total * image_bytes / 1e9
    allowed_gb = config.data_memory_gb
    if allowed_gb is None:
        allowed_gb = memory_gb(device, local_workers)
    stream = config.data == "stream" or (config.data == "auto" and size_gb > allowed_gb)
    # what one worker has to do all do, also those of machines with more memory: they read together
    stream = bool(Workers.from_process_group().total(torch.tensor(float(stream), device=device)))
    if say:
        how = f"streamed, {config.shuffle_gb:g} GB at a time" if stream else f"in memory ({device})"
        why = f"gan.data={config.data}, gan.data_memory_gb={allowed_gb:.3g}"
        print(f"train-gan: {order.total} images, {size_gb:.3g} GB, {how}; {why}", flush=True)
    if not stream:
        real = read_images([url], "train")
        return InMemoryDataset(real.images, real.soft_labels, config.seed, device, order=order)
    labels = read_soft_labels(store, manifest, "train")
    reader, exchange = shard_reader(store, manifest, readers), GlooChannel.from_process_group()
    return StreamingDataset(labels, shape, reader, order, device, exchange)


def memory_gb(device: torch.device, local_workers: int) -> float:
    """What the images of one worker may take where no setting says it, in gigabytes.

    They pass through the machine's memory on their way to a GPU, and the workers of a machine
    share it, so it counts in any case.
    """
    node = ray.get_runtime_context().get_node_id()
    (machine,) = (n["Resources"]["memory"] for n in ray.nodes() if n["NodeID"] == node)
    allowed = machine / local_workers
    if device.type == "cuda":
        allowed = min(allowed, torch.cuda.get_device_properties(device).total_memory)
    return SHARE_OF_MEMORY * allowed / 1e9


def shard_reader(store: Store, manifest: Manifest, readers: int = 1) -> ShardReader:
    """Reads rows of the train shards with Ray Data, `readers` shards at once.

    Its tasks ask Ray for no processor, since the workers of the training have taken all that
    there are; where they run, they take of the worker's.
    """
    shape, shards = manifest.image_shape, manifest.shards_of("train")

    def read(wanted: Mapping[int, np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        def load(batch: pa.Table) -> pa.Table:
            (number,) = batch["shard"].to_pylist()
            try:
                images, error = read_rows(store, manifest, shards[number], wanted[number]).data, ""
            except GemixError as reason:  # Ray Data keeps only the text of an error that is raised
                images, error = b"", str(reason)
            # as bytes: Ray's own columns of arrays take four times the room
            pixels = pa.array([images], pa.large_binary())
            return pa.table({"shard": [number], "images": pixels, "error": [error]})

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        # from_arrow, say, would run a task of its own that asks for a processor
        items = [{"shard": number} for number in wanted]
        pieces = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            load,
            batch_size=1,
            batch_format="pyarrow",
            compute=TaskPoolStrategy(size=min(readers, len(items))),
            num_cpus=0,
        )
        for table in pieces.iter_batches(batch_size=None, batch_format="pyarrow"):
            for shard, pixels, error in zip(*table.columns, strict=True):
                if error.as_py():
                    raise DataError(error.as_py())
                images = np.frombuffer(pixels.as_buffer(), np.uint8)
                yield shard.as_py(), images.reshape(-1, *shape)

    return read
