"""The order in which training images are shown, planned from the shards' row counts alone."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from gemix.core.rng import Stream, permutation, sample_rng


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShuffleWindow:
    """Images that are shuffled with each other and follow each other.

    Attributes:
        start, stop: the samples of the training, counted from 0, that are these images.
        shards: numbers of the shards that hold them, ascending.
        rows: int64 [stop - start], the image of each sample; images are counted over all shards.
    """

    start: int
    stop: int
    shards: tuple[int, ...]
    rows: np.ndarray

    def samples_at(self, batch: int, positions: Sequence[int]) -> np.ndarray:
        """The samples at these positions of their batch, int64 [n], ascending."""
        samples = np.arange(self.start, self.stop)
        return samples[np.isin(samples % batch, positions)]

    def rows_at(self, batch: int, positions: Sequence[int]) -> np.ndarray:
        """The images of :meth:`samples_at`, int64 [n]."""
        return self.rows[self.samples_at(batch, positions) - self.start]


class ShuffleOrder:
    """Which image is sample i of a training, for i = 0, 1, 2, …: a function of the seed.

    Every epoch holds every image once. The shards are put in an order of their own each epoch and
    cut into windows of at most `window_rows` images, at least one shard each; within a window the
    order is a uniform permutation, so a set of one window is shuffled as a whole. Nothing but row
    counts goes in: any place of the order can be told without reading what comes before it, and
    two windows of images are all that a reader which follows the order needs to hold.

    Args:
        shard_rows: number of images in each shard, at least 1 each.
        window_rows: images shuffled with each other.
    """

    def __init__(self, seed: int, shard_rows: Sequence[int], window_rows: int):
        self.seed, self.window_rows = seed, window_rows
        self.bounds = np.concatenate([[0], np.cumsum(shard_rows, dtype=np.int64)])
        self.total = int(self.bounds[-1])
        self._cuts = functools.lru_cache(maxsize=2)(self._cut)
        self._windows = functools.lru_cache(maxsize=2)(self._shuffle)

    def window_of(self, sample: int) -> ShuffleWindow:
        """The window that a sample falls into."""
        epoch, place = divmod(sample, self.total)
        starts = [start for start, _ in self._cuts(epoch)]
        return self._windows(epoch, int(np.searchsorted(starts, place, side="right")) - 1)

    def _cut(self, epoch: int) -> list[tuple[int, tuple[int, ...]]]:
        """The windows of an epoch: the place where each starts, and its shards."""
        sizes = np.diff(self.bounds)
        windows, start, rows, shards = [], 0, 0, []
        for shard in permutation(self.seed, Stream.SHARD_ORDER, len(sizes), step=epoch).tolist():
            if shards and rows + sizes[shard] > self.window_rows:
                windows.append((start, tuple(sorted(shards))))
                start, rows, shards = start + rows, 0, []
            shards.append(shard)
            rows += int(sizes[shard])
        return [*windows, (start, tuple(sorted(shards)))]

    def _shuffle(self, epoch: int, number: int) -> ShuffleWindow:
        place, shards = self._cuts(epoch)[number]
        rows = np.concatenate([np.arange(*self.bounds[shard : shard + 2]) for shard in shards])
        start = epoch * self.total + place
        rng = sample_rng(self.seed, Stream.DATA_ORDER, number, epoch)
        return ShuffleWindow(
            start=start,
            stop=start + len(rows),
            shards=shards,
            rows=rows[rng.permutation(len(rows))],
        )
