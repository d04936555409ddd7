"""Endless orders of the rows of a training set, functions of seed and position alone."""

from __future__ import annotations

import functools

import numpy as np

from gemix.core.rng import Stream, permutation


class Pool:
    """Some rows of a training set in an endless order: one permutation after another."""

    def __init__(self, seed: int, stream: Stream, first: int, count: int):
        self.first, self.count = first, count
        self._order = functools.lru_cache(maxsize=2)(
            lambda pass_: permutation(seed, stream, count, step=pass_)
        )

    def row(self, position: int) -> int:
        """Return the row at a position, from 0."""
        pass_, place = divmod(position, self.count)
        return self.first + int(self._order(pass_)[place])


class BalancedPool:
    """Some rows in an endless order that shows the classes among them equally often.

    Of K classes each K positions hold one row each, in random order; the rows of a class come in
    one permutation after another. Class-aware sampling: Shen et al., "Relay backpropagation for
    effective learning of deep convolutional neural networks", ECCV 2016.
    """

    def __init__(self, seed: int, stream: Stream, first: int, labels: np.ndarray):
        """Sort the rows by class.

        Args:
            first: row that `labels` begin with.
            labels: class of each row, int64 [n], n at least 1; classes without a row are left out.
        """
        classes = np.unique(labels)
        self._rows = [first + np.flatnonzero(labels == one) for one in classes]
        # keyed by the first row, so that two pools of a training draw different orders
        self._class_order = functools.lru_cache(maxsize=256)(
            lambda block: permutation(
                seed, Stream.CLASSIFIER_CLASS_ORDER, len(classes), step=block, index=first
            )
        )
        self._order = functools.lru_cache(maxsize=2 * len(classes))(
            lambda number, pass_: permutation(
                seed, stream, len(self._rows[number]), step=pass_, index=int(classes[number])
            )
        )

    def row(self, position: int) -> int:
        """Return the row at a position, from 0."""
        block, place = divmod(position, len(self._rows))
        number = int(self._class_order(block)[place])
        pass_, place = divmod(block, len(self._rows[number]))
        return int(self._rows[number][self._order(number, pass_)[place]])
