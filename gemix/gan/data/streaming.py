"""A training dataset that is read from shards while the training runs."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from gemix.gan.data.dataset import TrainingDataset, to_floats
from gemix.gan.data.gloo_channel import GlooChannel
from gemix.gan.data.shuffle_order import ShuffleOrder, ShuffleWindow

# Reads images: takes the shard rows to read of each shard (at least one shard; int64 [n],
# ascending) and yields each shard's number with its images (uint8 [n, C, H, W]), in any order.
ShardReader = Callable[[Mapping[int, np.ndarray]], Iterable[tuple[int, np.ndarray]]]


class StreamingDataset(TrainingDataset):
    """Two windows of the order in memory: one in use, one being read in the background.

    Each worker holds its own images of a window, which lie in nearly all of the window's shards.
    With a channel, each shard is read by one worker, which sends the others their images; without
    one, a worker reads its own images of all shards.

    Steps are expected in order; any other step reads its window anew.

    Args:
        labels: float32 [N, K] of all images, rows sum to 1.
        shape: channels, height and width of the images.
        read: reads images of shards, numbered as in `order`; called from another thread.
        order: of the N images, the same on all workers.
        device: of the batches.
        channel: to the other workers, which must ask for the same steps in the same order.
    """

    def __init__(
        self,
        labels: np.ndarray,
        shape: tuple[int, int, int],
        read: ShardReader,
        order: ShuffleOrder,
        device: torch.device | str = "cpu",
        channel: GlooChannel | None = None,
    ):
        super().__init__(labels, shape, order, device)
        self._read, self._channel = read, channel
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gemix-images")
        self._closed = threading.Event()
        self._share: tuple[int, tuple[int, ...]] | None = None
        self._current: _LoadedWindow | None = None
        self._next: tuple[ShuffleWindow, Future[_LoadedWindow]] | None = None
        self._last: tuple[object, np.ndarray, np.ndarray] | None = None

    def real_batch(
        self, step: int, batch: int, batch_index: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Return samples; see :meth:`TrainingDataset.real_batch`.

        Raises:
            DataError: for a damaged shard.
        """
        request = (step, batch, tuple(batch_index))
        if self._last is None or self._last[0] != request:  # a step may ask twice
            self._last = (request, *self._collect(*request))
        _, images, dataset_rows = self._last
        return to_floats(self.to_device(images)), self.labels[self.to_device(dataset_rows)]

    def close(self) -> None:
        """Stop reading ahead."""
        self._closed.set()
        # a read that is cancelled here may have begun on other workers, which would wait for it
        self._thread.shutdown(cancel_futures=self._channel is None)

    def _collect(
        self, step: int, batch: int, batch_index: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return images [n, C, H, W] and dataset rows [n] of samples that may cross windows."""
        if self._share != (batch, batch_index):
            self._share, self._current, self._next = (batch, batch_index), None, None
        sample_ids = step * batch + np.asarray(batch_index, dtype=np.int64)
        images = np.empty((len(sample_ids), *self.shape), dtype=np.uint8)
        dataset_rows = np.empty(len(sample_ids), dtype=np.int64)
        # every window of the global batch, so that all workers load the same ones at the same step
        start, stop = step * batch, (step + 1) * batch
        while start < stop:
            loaded = self._load(start)
            start = loaded.window.stop
            found = np.flatnonzero((loaded.window.start <= sample_ids) & (sample_ids < start))
            images[found], dataset_rows[found] = loaded.lookup(sample_ids[found])
        return images, dataset_rows

    def _load(self, sample_id: int) -> _LoadedWindow:
        """Return the window of a sample, and begin to read the next one."""
        current = self._current
        if current is None or not current.window.start <= sample_id < current.window.stop:
            self._current = current = None  # released first: two are in memory, never three
            window = self.order.window_of(sample_id)
            if self._next is None or self._next[0].start != window.start:
                self._next = self._submit(window)
            self._current = self._next[1].result()
            self._next = self._submit(self.order.window_of(window.stop))
        return self._current

    def _submit(self, window: ShuffleWindow) -> tuple[ShuffleWindow, Future[_LoadedWindow]]:
        return window, self._thread.submit(self._read_window, window, *self._share)

    def _read_window(
        self, window: ShuffleWindow, batch: int, batch_index: tuple[int, ...]
    ) -> _LoadedWindow:
        loaded = _LoadedWindow.empty(window, batch, batch_index, self.shape)
        slots = np.searchsorted(loaded.dataset_rows, self.order.bounds)
        read = self._read_own if self._channel is None else self._read_and_exchange
        for shard, images in read(loaded, batch, batch_index):
            loaded.images[slots[shard] : slots[shard + 1]] = images
        return loaded

    def _read_own(
        self, loaded: _LoadedWindow, batch: int, batch_index: tuple[int, ...]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Read this worker's images of each shard."""
        wanted = {
            shard: self._shard_rows(shard, loaded.dataset_rows) for shard in loaded.window.shards
        }
        wanted = {shard: shard_rows for shard, shard_rows in wanted.items() if len(shard_rows)}
        for shard, images in self._read(wanted) if wanted else ():
            if self._closed.is_set():
                return
            yield shard, images

    def _read_and_exchange(
        self, loaded: _LoadedWindow, batch: int, batch_index: tuple[int, ...]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Read some shards whole, and yield this worker's images of every shard.

        A worker that is closed meanwhile finishes, since others wait for what it reads. It reads
        and sends one shard at a time, so that no more are in memory.
        """
        channel, shards = self._channel, loaded.window.shards
        shares = [
            np.sort(loaded.window.dataset_rows_at(batch, share))
            for share in channel.all_gather_object(batch_index)
        ]
        bounds = self.order.bounds
        # starting at another worker in each window, since there may be fewer shards than workers
        mine = shards[(channel.rank - loaded.window.start) % channel.size :: channel.size]
        whole = {shard: np.arange(bounds[shard + 1] - bounds[shard]) for shard in mine}
        reading = iter(self._read(whole) if whole else ())
        for _ in range(0, len(shards), channel.size):
            shard, images = next(reading, (None, np.empty((0, *self.shape), np.uint8)))
            received_shards = channel.all_gather_object(shard)
            counts = [
                0 if number is None else len(self._shard_rows(number, loaded.dataset_rows))
                for number in received_shards
            ]
            received = channel.all_to_all(
                [
                    images if shard is None else images[self._shard_rows(shard, share)]
                    for share in shares
                ],
                [count * math.prod(self.shape) for count in counts],
            )
            for number, count, part in zip(received_shards, counts, received, strict=True):
                if count:
                    yield number, part.reshape(count, *self.shape)

    def _shard_rows(self, shard: int, dataset_rows: np.ndarray) -> np.ndarray:
        """Return the shard rows of those dataset rows, ascending, that are in a shard."""
        start, stop = self.order.bounds[shard : shard + 2]
        return dataset_rows[slice(*np.searchsorted(dataset_rows, (start, stop)))] - start


@dataclasses.dataclass(frozen=True)
class _LoadedWindow:
    """A worker's images of a window.

    Attributes:
        sample_ids: int64 [n], ascending.
        dataset_rows: int64 [n], ascending.
        slots: index into `dataset_rows` and `images` of each of the `sample_ids`, int64 [n].
        images: uint8 [n, C, H, W].
    """

    window: ShuffleWindow
    sample_ids: np.ndarray
    dataset_rows: np.ndarray
    slots: np.ndarray
    images: np.ndarray

    @classmethod
    def empty(
        cls,
        window: ShuffleWindow,
        batch: int,
        batch_index: Sequence[int],
        shape: tuple[int, int, int],
    ) -> _LoadedWindow:
        """Allocate memory for the samples at `batch_index` of every batch."""
        dataset_rows = window.dataset_rows_at(batch, batch_index)
        by_row = np.argsort(dataset_rows)
        slots = np.empty_like(by_row)
        slots[by_row] = np.arange(len(by_row))
        return cls(
            window=window,
            sample_ids=window.sample_ids_at(batch, batch_index),
            dataset_rows=dataset_rows[by_row],
            slots=slots,
            images=np.empty((len(dataset_rows), *shape), dtype=np.uint8),
        )

    def lookup(self, sample_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return images and dataset rows of samples in the window."""
        slots = self.slots[np.searchsorted(self.sample_ids, sample_ids)]
        return self.images[slots], self.dataset_rows[slots]
