"""What added images are worth: in equivalent real patients, and as a share of a ceiling."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worth:
    """Real patients that would have gained as much.

    Attributes:
        patients: above those of the training set; negative where the method is worse. None outside
            the learning curve.
        low, high: of the 95% interval of the method's difference to the baseline, likewise.
    """

    patients: float | None
    low: float | None
    high: float | None


class LearningCurve:
    """The baseline's score by real patients: lines in log(patients) that never fall.

    The curve is taken as exact: intervals are of the methods' differences to it alone.
    """

    def __init__(self, patients: Sequence[int], scores: Sequence[float]):
        """Take the points; at least two of different numbers of patients."""
        order = np.argsort(patients)
        self._log = np.log(np.asarray(patients, np.float64)[order])
        self._scores = np.maximum.accumulate(np.asarray(scores, np.float64)[order])

    def patients_for(self, score: float) -> float | None:
        """Return how many patients reach a score; None below or above the curve."""
        if not self._scores[0] <= score <= self._scores[-1]:
            return None
        right = int(np.searchsorted(self._scores, score, side="left"))
        if right == 0:
            return float(np.exp(self._log[0]))
        low, high = self._scores[right - 1], self._scores[right]
        share = (score - low) / (high - low)
        return float(
            np.exp(self._log[right - 1] + share * (self._log[right] - self._log[right - 1]))
        )

    def worth(self, patients: int, score: float, low: float, high: float) -> Worth:
        """Return the worth of a method on so many patients.

        Args:
            score: of the baseline on these patients, plus the method's difference to it.
            low, high: of its 95% interval.
        """
        found = [self.patients_for(value) for value in (score, low, high)]
        more = [None if one is None else one - patients for one in found]
        return Worth(patients=more[0], low=more[1], high=more[2])
