"""Images that are byte for byte the same after preprocessing: one of them is enough.

A copy tells a classifier nothing new, weighs its scan double, and on two sides of a split it is a
leak. Two copies with different labels are a mistake in the archive that only its owners can mend:
both are set aside.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Which of N images are copies.

    Attributes:
        of: int64 [N], a number that images with the same bytes share.
        conflicting: bool [N], whether the copies of this image differ in class.
    """

    of: np.ndarray
    conflicting: np.ndarray


def find_duplicates(checksum: np.ndarray, class_index: np.ndarray) -> Duplicates:
    """Finds copies.

    Args:
        checksum: uint64 [N, 2].
        class_index: int [N].
    """
    order = np.lexsort((class_index, checksum[:, 1], checksum[:, 0]))
    sums, labels = checksum[order], class_index[order]
    starts = np.ones(len(order), bool)
    starts[1:] = (sums[1:] != sums[:-1]).any(axis=1)
    number = np.cumsum(starts) - 1
    of = np.empty(len(order), np.int64)
    of[order] = number
    differs = ~starts
    differs[1:] &= labels[1:] != labels[:-1]
    conflicts = np.zeros(number[-1] + 1, bool)
    conflicts[number[differs]] = True
    return Duplicates(of=of, conflicting=conflicts[of])


def keep_one(of: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Which images stay: of copies the one in the latest split, of those the first.

    So a test set keeps all its images, and training loses the copies of them.

    Args:
        of: int64 [N], as :class:`Duplicates` has it.
        split: int8 [N], an index into train, val, test.

    Returns:
        bool [N].
    """
    order = np.lexsort((np.arange(len(of)), -split.astype(int), of))
    first = np.ones(len(of), bool)
    first[1:] = of[order][1:] != of[order][:-1]
    kept = np.zeros(len(of), bool)
    kept[order[first]] = True
    return kept
