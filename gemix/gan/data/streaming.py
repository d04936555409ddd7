"""Training images that are read from shards while the training runs."""

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

# Reads images: takes shard numbers (at least one) with the rows that are wanted of each (int64 [n],
# ascending, counted within the shard), gives each shard's number and these images (uint8
# [n, C, H, W]), shards in any order.
ShardReader = Callable[[Mapping[int, np.ndarray]], Iterable[tuple[int, np.ndarray]]]


class StreamingDataset(TrainingDataset):
    """At most two windows of the order in memory: one in use, one being read in the background.

    The order is planned for all workers together, so that it does not depend on their number. A
    worker holds only its own images of a window, its share, and since a window is shuffled as a
    whole, they lie in nearly all of its shards. So that each shard is read by one worker only, the
    shards of a window are dealt out, and the workers send each other what they have read. One that
    cannot exchange asks all shards for the rows of its share.

    Batches are meant to be asked for step by step; any other step costs reading its window anew.

    Args:
        labels: float32 [N, K], all of them, rows sum to 1.
        shape: channels, height and width of the images.
        read: gives images of shards, numbered as in `order`; it is called from another thread.
        order: of the N images.
        device: where batches go.
        exchange: with the other workers, which have to ask for the same steps in the same order.
    """

    def __init__(
        self,
        labels: np.ndarray,
        shape: tuple[int, int, int],
        read: ShardReader,
        order: ShuffleOrder,
        device: torch.device | str = "cpu",
        exchange: GlooChannel | None = None,
    ):
        super().__init__(labels, shape, order, device)
        self._read, self._exchange = read, exchange
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gemix-images")
        self._closed = threading.Event()
        self._share: tuple[int, tuple[int, ...]] | None = None
        self._held: _Held | None = None
        self._next: tuple[ShuffleWindow, Future[_Held]] | None = None
        self._last: tuple[object, np.ndarray, np.ndarray] | None = None

    def real_batch(self, step: int, batch: int, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """See :class:`TrainingDataset`.

        Raises:
            DataError: for a damaged shard.
        """
        asked = (step, batch, tuple(positions))
        if self._last is None or self._last[0] != asked:  # a step may want its images twice
            self._last = (asked, *self._collect(*asked))
        _, images, rows = self._last
        return to_floats(self.to_device(images)), self.labels[self.to_device(rows)]

    def close(self) -> None:
        """Stops reading ahead."""
        self._closed.set()
        # others may have begun what is cancelled here, and would wait for it
        self._thread.shutdown(cancel_futures=self._exchange is None)

    def _collect(
        self, step: int, batch: int, positions: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images [n, C, H, W] and row numbers [n] of samples that may cross windows."""
        if self._share != (batch, positions):
            self._share, self._held, self._next = (batch, positions), None, None
        samples = step * batch + np.asarray(positions, dtype=np.int64)
        images = np.empty((len(samples), *self.shape), dtype=np.uint8)
        rows = np.empty(len(samples), dtype=np.int64)
        # all windows of the batch, so that all workers go through the same ones at the same steps
        start, stop = step * batch, (step + 1) * batch
        while start < stop:
            held = self._hold(start)
            start = held.window.stop
            here = np.flatnonzero((held.window.start <= samples) & (samples < start))
            images[here], rows[here] = held.find(samples[here])
        return images, rows

    def _hold(self, sample: int) -> _Held:
        """The window of the sample, read; the one after it is begun to be read."""
        if self._held is None or not self._held.window.start <= sample < self._held.window.stop:
            self._held = None  # before another is waited for: two are in memory, never three
            window = self.order.window_of(sample)
            if self._next is None or self._next[0].start != window.start:
                self._next = self._begin(window)
            self._held = self._next[1].result()
            self._next = self._begin(self.order.window_of(window.stop))
        return self._held

    def _begin(self, window: ShuffleWindow) -> tuple[ShuffleWindow, Future[_Held]]:
        return window, self._thread.submit(self._load, window, *self._share)

    def _load(self, window: ShuffleWindow, batch: int, positions: tuple[int, ...]) -> _Held:
        held = _Held.empty(window, batch, positions, self.shape)
        places = np.searchsorted(held.rows, self.order.bounds)
        read = self._read_own if self._exchange is None else self._read_and_exchange
        for shard, images in read(held, batch, positions):
            held.images[places[shard] : places[shard + 1]] = images
        return held

    def _read_own(
        self, held: _Held, batch: int, positions: tuple[int, ...]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """This worker's images of each shard, read by itself."""
        wanted = {shard: self._within(shard, held.rows) for shard in held.window.shards}
        wanted = {shard: rows for shard, rows in wanted.items() if len(rows)}
        for shard, images in self._read(wanted) if wanted else ():
            if self._closed.is_set():
                return
            yield shard, images

    def _read_and_exchange(
        self, held: _Held, batch: int, positions: tuple[int, ...]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """This worker's images of each shard, from the one that has read it.

        What is begun is finished, also by a worker that is closed meanwhile: others wait for what
        it reads. Each reads and sends one shard at a time, so no more is in memory.
        """
        exchange, shards = self._exchange, held.window.shards
        shares = [
            np.sort(held.window.rows_at(batch, p)) for p in exchange.all_gather_object(positions)
        ]
        bounds = self.order.bounds
        # beginning with another one at another window, since there may be fewer shards than workers
        mine = shards[(exchange.rank - held.window.start) % exchange.size :: exchange.size]
        whole = {shard: np.arange(bounds[shard + 1] - bounds[shard]) for shard in mine}
        reading = iter(self._read(whole) if whole else ())
        for _ in range(0, len(shards), exchange.size):
            shard, images = next(reading, (None, np.empty((0, *self.shape), np.uint8)))
            came = exchange.all_gather_object(shard)
            sizes = [0 if n is None else len(self._within(n, held.rows)) for n in came]
            received = exchange.all_to_all(
                [images if shard is None else images[self._within(shard, s)] for s in shares],
                [size * math.prod(self.shape) for size in sizes],
            )
            for number, size, part in zip(came, sizes, received, strict=True):
                if size:
                    yield number, part.reshape(size, *self.shape)

    def _within(self, shard: int, rows: np.ndarray) -> np.ndarray:
        """Those of the rows, ascending, that are in a shard, counted within it."""
        start, stop = self.order.bounds[shard : shard + 2]
        return rows[slice(*np.searchsorted(rows, (start, stop)))] - start


@dataclasses.dataclass(frozen=True)
class _Held:
    """A worker's images of a window.

    Attributes:
        samples: int64 [n], ascending: which samples of the training they are.
        rows: int64 [n], ascending: which images, counted over all shards.
        slots: int64 [n], where in `rows` and `images` each of the `samples` is.
        images: uint8 [n, C, H, W].
    """

    window: ShuffleWindow
    samples: np.ndarray
    rows: np.ndarray
    slots: np.ndarray
    images: np.ndarray

    @classmethod
    def empty(
        cls,
        window: ShuffleWindow,
        batch: int,
        positions: Sequence[int],
        shape: tuple[int, int, int],
    ) -> _Held:
        """Room for the samples at `positions` of every batch."""
        samples, rows = window.samples_at(batch, positions), window.rows_at(batch, positions)
        by_row = np.argsort(rows)
        slots = np.empty_like(by_row)
        slots[by_row] = np.arange(len(by_row))
        images = np.empty((len(rows), *shape), dtype=np.uint8)
        return cls(window, samples, rows[by_row], slots, images)

    def find(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images and row numbers of samples that are held."""
        slots = self.slots[np.searchsorted(self.samples, samples)]
        return self.images[slots], self.rows[slots]
