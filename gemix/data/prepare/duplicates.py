"""Exact duplicates: images that are byte for byte the same after preprocessing.

One of them is kept: a duplicate gives its scan a double weight, and in another split it is a leak.
Two duplicates with different labels are a mistake in the archive that only its owners can correct:
both are set aside.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Duplicates among N images.

    Attributes:
        content_id: int64 [N], equal for images with the same bytes.
        conflicting: bool [N], whether the duplicates of this image differ in class.
    """

    content_id: np.ndarray
    conflicting: np.ndarray


def find_duplicates(checksum: np.ndarray, class_index: np.ndarray) -> Duplicates:
    """Find duplicates.

    Args:
        checksum: uint64 [N, 2].
        class_index: int [N].
    """
    order = np.lexsort((class_index, checksum[:, 1], checksum[:, 0]))
    sums, labels = checksum[order], class_index[order]
    starts = np.ones(len(order), bool)
    starts[1:] = (sums[1:] != sums[:-1]).any(axis=1)
    number = np.cumsum(starts) - 1
    content_id = np.empty(len(order), np.int64)
    content_id[order] = number
    differs = ~starts
    differs[1:] &= labels[1:] != labels[:-1]
    conflicts = np.zeros(number[-1] + 1, bool)
    conflicts[number[differs]] = True
    return Duplicates(content_id=content_id, conflicting=conflicts[content_id])


def keep_one(content_id: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Select one of all duplicates: in the latest split, and there the first.

    So the test set keeps all its images, and training loses the duplicates of them.

    Args:
        content_id: int64 [N], as :class:`Duplicates` has it.
        split: int8 [N], an index into train, val, test.

    Returns:
        bool [N].
    """
    order = np.lexsort((np.arange(len(content_id)), -split.astype(int), content_id))
    first = np.ones(len(content_id), bool)
    first[1:] = content_id[order][1:] != content_id[order][:-1]
    kept = np.zeros(len(content_id), bool)
    kept[order[first]] = True
    return kept
