"""A random sample of the images of a split, read shard by shard to bound memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gemix.core.rng import Stream, permutation
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.partial_reading import read_rows
from gemix.io.storage import Store

_CHUNK = 2048


class RealImages:
    """At most `limit` images of a split, drawn without replacement; equal in every process.

    Args:
        store: the shard set.
        split: train, val or test.
        limit: how many images at most.

    Attributes:
        rows: int64 [N], the drawn images' rows in the split, in random order. A *position* is an
            index into this array.
        total: number of images of the split.
        digest: of the whole split.
    """

    def __init__(self, store: Store, split: str, limit: int):
        self.store, self.manifest = store, Manifest.load(store)
        self.shards = self.manifest.shards_of(split)
        self.bounds = np.cumsum([0, *(shard.rows for shard in self.shards)])
        self.total = int(self.bounds[-1])
        self.rows = permutation(0, Stream.METRIC, self.total)[:limit]
        self.digest = self.manifest.content_digest(split)

    def __len__(self) -> int:
        return len(self.rows)

    def chunks(self, rank: int = 0, size: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the images of every `size`-th shard, from shard `rank` on.

        Yields:
            Positions, int64 [n], and images, uint8 [n, C, H, W], n at most 2048.
        """
        for number in range(rank, len(self.shards), size):
            positions, inside = self._within(number, np.arange(len(self)))
            for start in range(0, len(positions), _CHUNK):
                part = slice(start, start + _CHUNK)
                yield positions[part], self._read(number, inside[part])

    def read(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the images at positions, which may repeat, in their order: uint8 [n, C, H, W]."""
        wanted = np.asarray(positions, dtype=np.int64)
        unique, inverse = np.unique(wanted, return_inverse=True)
        images = np.empty((len(unique), *self.manifest.image_shape), np.uint8)
        for number in range(len(self.shards)):
            found, inside = self._within(number, unique)
            if len(found):
                images[np.searchsorted(unique, found)] = self._read(number, inside)
        return images[inverse]

    def _within(self, shard: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions that lie in a shard and their rows in it, ascending."""
        rows = self.rows[positions]
        mine = (rows >= self.bounds[shard]) & (rows < self.bounds[shard + 1])
        order = rows[mine].argsort()
        return positions[mine][order], rows[mine][order] - self.bounds[shard]

    def _read(self, shard: int, rows: np.ndarray) -> np.ndarray:
        return read_rows(self.store, self.manifest, self.shards[shard], rows)
