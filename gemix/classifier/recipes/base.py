"""The interface of a recipe, and what recipes are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from torch import Tensor

from gemix.classifier.recipes.pools import BalancedPool, Pool
from gemix.core.rng import Stream

if TYPE_CHECKING:
    from gemix.classifier.config import ClassifierConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeContext:
    """Inputs of a recipe.

    The rows of the training set are those of the real images, then those of the synthetic ones.

    Attributes:
        seed: of the training.
        real, synthetic: images of each kind; at least one of them is above 0.
        batch: images of a step, over all workers.
        steps: of the whole training.
        synthetic_weight: ``classifier.synthetic_weight``.
        synthetic_share: ``classifier.synthetic_share``.
        labels: class of each row, int64 [real + synthetic], where classes are to be shown equally
            often (``classifier.balance=sampler``); else None.
    """

    seed: int
    real: int
    synthetic: int
    batch: int
    steps: int
    synthetic_weight: float = 1.0
    synthetic_share: float = 0.5
    labels: np.ndarray | None = None

    @classmethod
    def of(cls, config: ClassifierConfig, labels: np.ndarray, *, real: int, steps: int) -> Self:
        """Return the context of a training by these settings.

        Args:
            labels: class of each row of the training set, int64 [N].
            real: how many of the rows, the first ones, are real images.
            steps: of the whole training.
        """
        return cls(
            seed=config.seed,
            real=real,
            synthetic=len(labels) - real,
            batch=config.batch,
            steps=steps,
            synthetic_weight=config.synthetic_weight,
            synthetic_share=config.synthetic_share,
            labels=labels if config.balance == "sampler" else None,
        )

    def pool(self, stream: Stream, first: int, count: int) -> Pool | BalancedPool:
        """Return `count` rows, from `first` on, in an endless order, balanced where that is asked.

        Args:
            stream: of the order.
        """
        if self.labels is None:
            return Pool(self.seed, stream, first, count)
        return BalancedPool(self.seed, stream, first, self.labels[first : first + count])


class Recipe(Protocol):
    """Say which images each step shows; :mod:`gemix.classifier.recipes.testing` has its contract.

    It is built with a :class:`RecipeContext`.

    Attributes:
        restarts: steps at which the schedule of the learning rate begins anew, 0 first.
    """

    restarts: tuple[int, ...]

    @staticmethod
    def real_share(context: RecipeContext) -> float:
        """Return the share of real images among all that a training shows, however long it is."""

    def rows(self, step: int, batch_indices: Sequence[int]) -> list[int]:
        """Return the rows of the training set at these places of the global batch."""

    def weights(self, rows: Tensor) -> Tensor | None:
        """Return the weight of each row in the loss, float32 [n]; None where all are equal.

        Their mean over the training set is 1, so that a batch of any mixture, or a worker's part of
        it, needs no normalization of its own.

        Args:
            rows: int64 [n].
        """


class SharedBatches:
    """Batches of a share of synthetic images that changes with the step; the rest are real ones.

    Attributes:
        synthetic_images: of each step, int64 [steps].
    """

    restarts: tuple[int, ...] = (0,)

    def __init__(self, context: RecipeContext, shares: np.ndarray):
        """Prepare the pools.

        Args:
            shares: of synthetic images in each step's batch, 0 to 1, float64 [steps].
        """
        # rounded sums, so that small shares are met over several steps
        total = np.round(np.cumsum(shares) * context.batch).astype(np.int64)
        self.synthetic_images = np.diff(total, prepend=0)
        self._before = total - self.synthetic_images
        self._batch = context.batch
        self._real = context.pool(Stream.CLASSIFIER_ORDER, 0, context.real)
        self._synthetic = context.pool(
            Stream.CLASSIFIER_SYNTHETIC_ORDER, context.real, context.synthetic
        )

    @staticmethod
    def real_share(context: RecipeContext) -> float:
        """See :class:`Recipe`."""
        return 1 - context.synthetic_share

    def rows(self, step: int, batch_indices: Sequence[int]) -> list[int]:
        """See :class:`Recipe`; the synthetic images come first in the batch."""
        synthetic, before = int(self.synthetic_images[step]), int(self._before[step])
        real_before = step * self._batch - before
        return [
            self._synthetic.row(before + index)
            if index < synthetic
            else self._real.row(real_before + index - synthetic)
            for index in batch_indices
        ]

    def weights(self, rows: Tensor) -> None:
        """See :class:`Recipe`; all are equal."""
