"""Training images that are read from shards while the training runs."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from gemix.gan.dataset import TrainingData, to_floats
from gemix.gan.order import Order, Window

# Reads images: takes shard numbers (at least one) with the rows that are wanted of each (int64 [n],
# ascending, counted within the shard), gives each shard's number and these images (uint8
# [n, C, H, W]), shards in any order.
ShardReader = Callable[[Mapping[int, np.ndarray]], Iterable[tuple[int, np.ndarray]]]


class StreamedImages(TrainingData):
    """At most two windows of the order in memory: one in use, one being read in the background.

    The order is planned for all workers together, so that it does not depend on their number. A
    worker holds only its own images of a window, its share. It asks the shards of the window for
    these, and since a window is shuffled as a whole, they lie in nearly all of its shards: every
    worker opens every shard and keeps a part. The other way, shards of its own for each worker,
    would make the order, and so the result, a matter of the number of workers.

    Batches are meant to be asked for step by step; any other step costs reading its window anew.

    Args:
        labels: float32 [N, K], all of them, rows sum to 1.
        shape: channels, height and width of the images.
        read: gives images of shards, numbered as in `order`; it is called from another thread.
        order: of the N images.
        device: where batches go.
    """

    def __init__(
        self,
        labels: np.ndarray,
        shape: tuple[int, int, int],
        read: ShardReader,
        order: Order,
        device: torch.device | str = "cpu",
    ):
        super().__init__(labels, shape, order, device)
        self._read = read
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gemix-images")
        self._closed = threading.Event()
        self._share: tuple[int, tuple[int, ...]] | None = None
        self._held: _Held | None = None
        self._next: tuple[Window, Future[_Held]] | None = None
        self._last: tuple[object, np.ndarray, np.ndarray] | None = None

    def real_batch(self, step: int, batch: int, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """See :class:`TrainingData`.

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
        self._thread.shutdown(cancel_futures=True)

    def _collect(
        self, step: int, batch: int, positions: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images [n, C, H, W] and row numbers [n] of samples that may cross windows."""
        if self._share != (batch, positions):
            self._share, self._held, self._next = (batch, positions), None, None
        samples = step * batch + np.asarray(positions, dtype=np.int64)
        images = np.empty((len(samples), *self.shape), dtype=np.uint8)
        rows = np.empty(len(samples), dtype=np.int64)
        left = np.argsort(samples)
        while len(left):
            held = self._hold(int(samples[left[0]]))
            here = left[samples[left] < held.window.stop]
            images[here], rows[here] = held.find(samples[here])
            left = left[len(here) :]
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

    def _begin(self, window: Window) -> tuple[Window, Future[_Held]]:
        return window, self._thread.submit(self._load, window, *self._share)

    def _load(self, window: Window, batch: int, positions: tuple[int, ...]) -> _Held:
        held = _Held.empty(window, batch, positions, self.shape)
        places = np.searchsorted(held.rows, self.order.bounds)
        wanted = {
            shard: held.rows[places[shard] : places[shard + 1]] - self.order.bounds[shard]
            for shard in window.shards
            if places[shard] < places[shard + 1]
        }
        for shard, images in self._read(wanted) if wanted else ():
            if self._closed.is_set():
                break
            held.images[places[shard] : places[shard + 1]] = images
        return held


@dataclasses.dataclass(frozen=True)
class _Held:
    """A worker's images of a window.

    Attributes:
        samples: int64 [n], ascending: which samples of the training they are.
        rows: int64 [n], ascending: which images, counted over all shards.
        slots: int64 [n], where in `rows` and `images` each of the `samples` is.
        images: uint8 [n, C, H, W].
    """

    window: Window
    samples: np.ndarray
    rows: np.ndarray
    slots: np.ndarray
    images: np.ndarray

    @classmethod
    def empty(
        cls, window: Window, batch: int, positions: Sequence[int], shape: tuple[int, int, int]
    ) -> _Held:
        """Room for the samples at `positions` of every batch."""
        mine = np.isin(np.arange(window.start, window.stop) % batch, positions)
        samples, rows = np.flatnonzero(mine) + window.start, window.rows[mine]
        by_row = np.argsort(rows)
        slots = np.empty_like(by_row)
        slots[by_row] = np.arange(len(by_row))
        images = np.empty((len(rows), *shape), dtype=np.uint8)
        return cls(window, samples, rows[by_row], slots, images)

    def find(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images and row numbers of samples that are held."""
        slots = self.slots[np.searchsorted(self.samples, samples)]
        return self.images[slots], self.rows[slots]
