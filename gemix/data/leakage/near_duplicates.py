"""Which images are nearly the same, told from their fingerprints, a block of pairs at a time.

Near duplicates are pairs whose hashes differ in at most 10 of 64 bits and whose 16 x 16 copies
correlate to at least 0.95 (:mod:`gemix.data.leakage.perceptual_hash`). The thresholds were chosen
on 876 lung CT slices of a public collection, body crops of 128 x 128 pixels:

- Of 224 thousand pairs of different diagnosis, so of different patients, one was called near, and
  to the eye it shows neighbouring slices of one patient; no other correlates above 0.94.
- Copies moved by a pixel in both directions are found in 99 of 100 cases, and in all cases with
  noise of 12 grey values, other brightness, contrast or gamma, or another size. Of copies moved
  by two pixels one in twenty is found, of mirrored ones none.
- Of neighbouring files, mostly neighbouring slices of a patient, a fifth were called near.

That is rare, but a large set has many pairs: look at the sheet before anything is thrown out.
Phantom patients are more alike than people: about one in a hundred of their pairs is called near.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gemix.data.leakage.perceptual_hash import Fingerprints, distance

MAX_BITS = 10
MIN_CORRELATION = 0.95

_BLOCK = 768  # a side of the blocks of pairs: where all are near, 40 MB at a time


def near_pairs(first: Fingerprints, second: Fingerprints) -> np.ndarray:
    """All pairs of near duplicates: int64 [M, 2], rows of `first` and of `second`, sorted.

    Memory holds the answer and one block of pairs, whatever the sizes. Of a set with itself every
    pair comes twice, and each image with itself unless it is of one grey.
    """
    found = [np.stack([rows, columns], axis=1) for rows, columns, _ in near_blocks(first, second)]
    pairs = np.concatenate(found or [np.empty((0, 2), np.int64)])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def near_blocks(
    first: Fingerprints, second: Fingerprints
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The same a block at a time.

    Yields:
        Rows of `first` and rows of `second`, int64 [m], and their correlations, float32 [m].
    """
    for top in range(0, len(first), _BLOCK):
        above = first.take(slice(top, top + _BLOCK))
        for left in range(0, len(second), _BLOCK):
            beside = second.take(slice(left, left + _BLOCK))
            block = above.copies @ beside.copies.T
            rows, columns = np.nonzero(block >= MIN_CORRELATION)
            near = distance(above.hashes[rows], beside.hashes[columns]) <= MAX_BITS
            rows, columns = rows[near], columns[near]
            if len(rows):
                yield rows + top, columns + left, block[rows, columns]
