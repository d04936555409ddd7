"""The order in which a training sees its images, planned from the shards' row counts alone.

Indices of the training data, each of one meaning throughout gemix:

- ``batch_index``: place in the global batch of a step, 0 to batch - 1; workers share these.
- ``sample_id``: number of a sample since the start of the training,
  ``step * batch + batch_index``.
- ``dataset_row``: number of an image in the data set, counted over all shards, 0 to N - 1. The
  order maps sample ids to dataset rows.
- ``shard_row``: number of an image in its shard, ``dataset_row - bounds[shard]``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from gemix.core.rng import Stream, permutation, sample_rng


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShuffleWindow:
    """Consecutive samples that are shuffled with each other.

    Attributes:
        start, stop: range of sample ids.
        shards: numbers of the shards that hold the images, ascending.
        dataset_rows: the image of each sample, int64 [stop - start].
    """

    start: int
    stop: int
    shards: tuple[int, ...]
    dataset_rows: np.ndarray

    def sample_ids_at(self, batch: int, batch_index: Sequence[int]) -> np.ndarray:
        """Return the sample ids at these indices of any batch, int64 [n], ascending."""
        sample_ids = np.arange(self.start, self.stop)
        return sample_ids[np.isin(sample_ids % batch, batch_index)]

    def dataset_rows_at(self, batch: int, batch_index: Sequence[int]) -> np.ndarray:
        """Return the images of :meth:`sample_ids_at`, int64 [n]."""
        return self.dataset_rows[self.sample_ids_at(batch, batch_index) - self.start]


class ShuffleOrder:
    """Map sample ids 0, 1, 2, … of a training to dataset rows, as a function of the seed.

    Every epoch holds every image once, unless classes are balanced. An epoch shuffles the shards
    and cuts them into windows of at most `window_rows` images, but at least one shard; within a
    window the order is a uniform permutation. A set of one window is thus shuffled as a whole. Any
    sample can be looked up without those before it, and reading in order needs two windows of
    images in memory.

    Args:
        shard_rows: number of images in each shard, at least 1 each.
        window_rows: images shuffled with each other.
        classes: of the images, int [N]; needed where `balance` is not 0.
        balance: exponent g, 0 to 1: an image of a class of n images is shown n^-g times as often.
            At 1 classes are shown equally often, as far as a window holds images of each. No image
            is shown again in a window before all of its class were.

    Attributes:
        bounds: dataset row at which each shard starts, and their total, int64 [shards + 1].
        total: number of images.
        row_weights: how often each image is shown, as a share, float64 [N]; None for equally often.
    """

    def __init__(
        self,
        seed: int,
        shard_rows: Sequence[int],
        window_rows: int,
        *,
        classes: np.ndarray | None = None,
        balance: float = 0.0,
    ):
        self.seed, self.window_rows = seed, window_rows
        self.row_weights: np.ndarray | None = None
        if balance:
            _, self._classes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
            self.row_weights = (sizes**-balance)[self._classes]
            self.row_weights /= self.row_weights.sum()
        self.bounds = np.concatenate([[0], np.cumsum(shard_rows, dtype=np.int64)])
        self.total = int(self.bounds[-1])
        self._cuts = functools.lru_cache(maxsize=2)(self._cut)
        self._windows = functools.lru_cache(maxsize=2)(self._shuffle)

    def window_of(self, sample_id: int) -> ShuffleWindow:
        """Return the window that a sample falls into."""
        epoch, offset = divmod(sample_id, self.total)
        starts = [start for start, _ in self._cuts(epoch)]
        return self._windows(epoch, int(np.searchsorted(starts, offset, side="right")) - 1)

    def _cut(self, epoch: int) -> list[tuple[int, tuple[int, ...]]]:
        """Return the windows of an epoch: the offset at which each starts, and its shards."""
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
        offset, shards = self._cuts(epoch)[number]
        rows = np.concatenate([np.arange(*self.bounds[shard : shard + 2]) for shard in shards])
        start = epoch * self.total + offset
        rng = sample_rng(self.seed, Stream.DATA_ORDER, number, epoch)
        if self.row_weights is not None:
            rows = self._balanced(rows, rng)
        return ShuffleWindow(
            start=start,
            stop=start + len(rows),
            shards=shards,
            dataset_rows=rows[rng.permutation(len(rows))],
        )

    def _balanced(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return as many rows, those of each class as often as its images weigh together."""
        classes = self._classes[rows]
        names = np.unique(classes)
        wanted = np.array([self.row_weights[self._classes == name].sum() for name in names])
        wanted *= len(rows) / wanted.sum()
        counts = wanted.astype(np.int64)
        by_remainder = np.argsort(counts - wanted, kind="stable")
        counts[by_remainder[: len(rows) - counts.sum()]] += 1
        chosen = []
        for name, count in zip(names, counts.tolist(), strict=True):
            mine = rows[classes == name]
            rounds = [rng.permutation(mine) for _ in range(-(-count // len(mine)))]
            chosen.append(np.concatenate([rows[:0], *rounds])[:count])
        return np.concatenate(chosen)
