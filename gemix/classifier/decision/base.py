"""The interface of a rule, and what rules choose from."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoredImages:
    """Validation images, by how sure a classifier is of any disease.

    Attributes:
        scores: log-odds of disease, float [N].
        is_diseased: bool [N].
        groups: of the images, patients where they are known, str [N].
    """

    scores: np.ndarray
    is_diseased: np.ndarray
    groups: np.ndarray


def threshold_below(scores: np.ndarray, lowest: float) -> float:
    """Return a threshold from which `lowest`, one of the scores, and all above it are.

    It lies midway to the next lower score, so that rounding on another device moves no image across
    it; below all of them it is `lowest` itself.
    """
    lower = scores[scores < lowest]
    return float((lower.max() + lowest) / 2) if len(lower) else float(lowest)


class Rule(Protocol):
    """Choose a threshold of the probability of disease; :mod:`.testing` has its contract."""

    def __call__(self, images: ScoredImages, level: float) -> float | None:
        """Return the score from which an image counts as diseased; None: its most probable class.

        Args:
            level: ``decision.level``, 0 to 1.

        Raises:
            DataError: if the images cannot support the level.
        """
