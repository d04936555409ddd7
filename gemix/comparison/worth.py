"""Worth of added images in equivalent real patients, read from a learning curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gemix.io.comparison_record import EquivalentPatients


class LearningCurve:
    """The baseline's score by real patients: lines in log(patients) that never fall.

    The curve is taken as exact: intervals are of the methods' differences to it alone.
    """

    def __init__(self, patients: Sequence[int], scores: Sequence[float]):
        """Take the points; at least two of different numbers of patients."""
        order = np.argsort(patients)
        self._log = np.log(np.asarray(patients, np.float64)[order])
        self._scores = np.maximum.accumulate(np.asarray(scores, np.float64)[order])

    def patients_for(self, score: float) -> float:
        """Return how many patients reach a score, within the ends of the curve."""
        right = int(np.searchsorted(self._scores, score, side="left"))
        if right == 0:
            return float(np.exp(self._log[0]))
        if right == len(self._scores):
            return float(np.exp(self._log[-1]))
        low, high = self._scores[right - 1], self._scores[right]
        share, step = (score - low) / (high - low), self._log[right] - self._log[right - 1]
        return float(np.exp(self._log[right - 1] + share * step))

    def worth(self, patients: int, score: float, low: float, high: float) -> EquivalentPatients:
        """Return the worth of a method on so many patients.

        Args:
            score: of the baseline on these patients, plus the method's difference to it.
            low, high: of its 95% interval.
        """
        ends = (self._scores[0] - 1, self._scores[-1] + 1)
        found = [self.patients_for(value) - patients for value in (score, low, high, *ends)]
        return EquivalentPatients(
            patients=found[0], low=found[1], high=found[2], fewest=found[3], most=found[4]
        )


def format_patients(value: float, worth: EquivalentPatients) -> str:
    """Return a number of patients with its sign, and ``≤`` or ``≥`` at an end of the curve."""
    text = f"{value:+.0f}".replace("-", "−").replace("+0", "0")
    if value <= worth.fewest + 1e-6:
        return f"≤ {text}"
    return f"≥ {text}" if value >= worth.most - 1e-6 else text
