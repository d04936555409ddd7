"""Miss as few of the sick as a least specificity allows."""

from __future__ import annotations

import numpy as np

from gemix.classifier.decision.base import ScoredImages, threshold_below
from gemix.core.errors import DataError


def threshold(images: ScoredImages, level: float) -> float:
    """Return the lowest threshold that has the specificity on these images; see the interface."""
    if images.is_diseased.all():
        raise DataError(
            "decision.rule=specificity: no validation image is of the healthy class; choose "
            "decision.rule=most-probable, or larger splits (data.val_fraction)"
        )
    least = threshold_at_specificity(images.is_diseased, images.scores, level)
    above = images.scores[images.scores >= least]
    return threshold_below(images.scores, above.min()) if len(above) else least


def threshold_at_specificity(is_diseased: np.ndarray, scores: np.ndarray, wanted: float) -> float:
    """Return the lowest threshold at which at least a share `wanted` of the healthy score below it.

    Args:
        is_diseased: bool [N], some of them healthy.
        scores: probability of any disease, float [N].
        wanted: specificity, 0 to 1.
    """
    healthy = np.sort(scores[~is_diseased])
    needed = int(np.ceil(wanted * len(healthy) - 1e-9))
    if needed == 0:
        return float("-inf")
    return float(np.nextafter(healthy[needed - 1], np.inf))
