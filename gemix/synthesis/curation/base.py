"""The interface of a curation rule: which images are left out of a synthetic set."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor

from gemix.evaluation.image_quality.features.base import Extractor
from gemix.evaluation.privacy.measure import RealSample

if TYPE_CHECKING:
    from gemix.synthesis.curation.config import CurationConfig


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """The images of a set, and what rules judge them by.

    Attributes:
        images: uint8 [N, C, H, W], in the order of the set.
        asked: labels that the generator was asked for, float32 [N, K].
        training: real training images with their patients.
        extractor: of features.
        learned_thumbnails: thumbnails of all images that the generator learned from, in parts
            (:mod:`gemix.data.leakage.perceptual_hash`).
        discriminator: returns the logits [N] of images with labels; None where there is none.
    """

    images: np.ndarray
    asked: np.ndarray
    training: RealSample
    extractor: Extractor
    learned_thumbnails: Callable[[], Iterable[np.ndarray]]
    discriminator: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None

    @functools.cached_property
    def features(self) -> Tensor:
        """Features of the images, float32 [N, D]."""
        return self.extractor(self.images)

    @functools.cached_property
    def training_features(self) -> Tensor:
        """Features of the training images, float32 [M, D]."""
        return self.extractor(self.training.images)


class CurationRule(abc.ABC):
    """A rule; :mod:`gemix.synthesis.curation.testing` holds its contract.

    Attributes:
        name: in ``curation.rules``.
        meaning: what is removed, for readers.
        compares_with_training: whether it removes images for being near training images. What is
            left then says nothing of the generator by such distances.
    """

    name: ClassVar[str]
    meaning: ClassVar[str]
    compares_with_training: ClassVar[bool] = False

    @abc.abstractmethod
    def removes(self, candidates: Candidates, config: CurationConfig) -> np.ndarray:
        """Return which images are removed, bool [N].

        Raises:
            ConfigError: if what the rule needs is not there.
        """


class ScoreRule(CurationRule):
    """A rule that removes the images of the lowest scores, the same share of each class.

    Of classes, since images of some are harder than those of others, and a set should keep the
    balance that was asked for.
    """

    @abc.abstractmethod
    def scores(self, candidates: Candidates) -> np.ndarray:
        """Return a score of each image, higher is better: float64 [N]."""

    def removes(self, candidates: Candidates, config: CurationConfig) -> np.ndarray:
        """See :class:`CurationRule`; of equal scores the later images are removed."""
        scores, wanted = self.scores(candidates), candidates.asked.argmax(axis=1)
        removed = np.zeros(len(scores), bool)
        for one in np.unique(wanted):
            rows = np.flatnonzero(wanted == one)
            count = int(config.lowest_share * len(rows))
            order = np.lexsort((-rows, scores[rows]))
            removed[rows[order[:count]]] = True
        return removed
