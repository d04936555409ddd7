"""Near duplicates: images that are nearly the same, told by their fingerprints.

Two images are near duplicates (:mod:`gemix.data.leakage.perceptual_hash`) if

- their hashes differ in at most 10 of 64 bits and their 16 x 16 copies correlate to 0.95 or more,
  or
- their copies, or one and the mirrored other, correlate to 0.997 or more: they are copies of one
  image, saved again, brightened or mirrored.

The first rule was measured on 876 lung CT slices of a public collection, body crops of 128 x 128
pixels:

- Of 224 thousand pairs of different diagnosis, so of different patients, one was called near, and
  to the eye it shows neighbouring slices of one patient; no other correlates above 0.94.
- Copies moved by a pixel in both directions are found in 99 of 100 cases, and in all cases with
  noise of 12 grey values, other brightness, contrast or gamma, or another size. Of copies moved
  by two pixels one in twenty is found.
- Of neighbouring files, mostly neighbouring slices of a patient, a fifth were called near.
- About one in a hundred pairs of phantom patients, who are more alike than people, is called near.

The second rule finds copies only, which may be refused (:mod:`gemix.data.leakage.overlap`):

- Copies saved as JPEG of quality 95 correlate to 0.9992 or more, brighter by 3 to 0.9997 or more,
  mirrored exactly (public CT and phantoms, 16 to 128 pixels a side).
- Different patients correlate to 0.92 at most on public CT, to 0.992 at most on phantoms.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gemix.data.leakage.perceptual_hash import SIDE, Fingerprints, distance, mirror, unit_vectors

MAX_DISTANCE = 10
MIN_CORRELATION = 0.95
MIN_COPY_CORRELATION = 0.997

_BLOCK = 768  # a side of the blocks of pairs: where all are near, 40 MB at a time


def near_pairs(first: Fingerprints, second: Fingerprints) -> np.ndarray:
    """Find all pairs of near duplicates: int64 [M, 2], rows of `first` and of `second`, sorted.

    Memory holds the result and one block of pairs, whatever the sizes. Of a set with itself every
    pair comes twice, and each image with itself unless it is of one grey.
    """
    found = [np.stack([rows, columns], axis=1) for rows, columns, _ in near_blocks(first, second)]
    pairs = np.concatenate(found or [np.empty((0, 2), np.int64)])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def near_blocks(
    first: Fingerprints, second: Fingerprints
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Find the same pairs a block at a time.

    Yields:
        Rows of `first` and rows of `second`, int64 [m], and their correlations, float32 [m]; of a
        mirrored copy the correlation with the mirrored image.
    """
    for top in range(0, len(first), _BLOCK):
        above = first.take(slice(top, top + _BLOCK))
        for left in range(0, len(second), _BLOCK):
            beside = second.take(slice(left, left + _BLOCK))
            straight, mirrored = _correlate(above.copies, beside.copies)
            rows, columns = np.nonzero(straight >= MIN_CORRELATION)
            is_near = distance(above.hashes[rows], beside.hashes[columns]) <= MAX_DISTANCE
            is_near |= straight[rows, columns] >= MIN_COPY_CORRELATION
            rows, columns = rows[is_near], columns[is_near]
            similarity = straight[rows, columns]
            mirrored[rows, columns] = 0  # found already
            more = np.nonzero(mirrored >= MIN_COPY_CORRELATION)
            if len(rows) or len(more[0]):
                yield (
                    np.concatenate([rows, more[0]]) + top,
                    np.concatenate([columns, more[1]]) + left,
                    np.concatenate([similarity, mirrored[more]]),
                )


def find_copies(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Find images that are copies of others, maybe mirrored, by the second rule.

    Args:
        images: thumbnails, uint8 [M, 256].
        others: thumbnails, uint8 [N, 256].

    Returns:
        bool [M].
    """
    found = np.zeros(len(images), bool)
    for left in range(0, len(others), _BLOCK):
        beside = unit_vectors(others[left : left + _BLOCK])
        for top in range(0, len(images), _BLOCK):
            rows = slice(top, top + _BLOCK)
            for block in _correlate(unit_vectors(images[rows]), beside):
                found[rows] |= (block >= MIN_COPY_CORRELATION).any(axis=1)
    return found


def _correlate(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the correlations of copies, [n, m], and those with the mirrored second.

    Mirroring negates the part of an image that is odd in x, so that products of even and odd parts
    give both correlations at the cost of one.
    """
    even, odd = zip(*map(_even_and_odd, (first, second)), strict=True)
    of_even, of_odd = even[0] @ even[1].T, odd[0] @ odd[1].T
    return of_even + of_odd, of_even - of_odd


def _even_and_odd(copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the parts that are even and odd in x: [n, 128] each, together of the same length."""
    mirrored = mirror(copies)
    rows = (len(copies), SIDE, SIDE)
    halves = [part.reshape(rows)[:, :, : SIDE // 2] for part in (copies, mirrored)]
    shape = len(copies), SIDE * SIDE // 2
    even, odd = (halves[0] + halves[1]) / 2**0.5, (halves[0] - halves[1]) / 2**0.5
    return even.reshape(shape), odd.reshape(shape)
