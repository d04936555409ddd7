"""Keep a sensitivity for new patients, by conformal risk control."""

from __future__ import annotations

import math

import numpy as np

from gemix.classifier.decision.base import ScoredImages, threshold_below
from gemix.core.errors import DataError

ROUNDING = 1e-12


def threshold(images: ScoredImages, level: float) -> float:
    """Return the highest threshold whose expected share of missed images is 1 - level at most.

    Angelopoulos et al., "Conformal risk control", ICLR 2024, equation 4 with losses up to B = 1:
    the loss of a diseased patient is the share of the diseased images below the threshold. The
    expectation is over the validation patients and a new one who is exchangeable with them; it is
    approximate where these patients also chose the epoch and the temperature.

    Raises:
        DataError: for fewer than 1 / (1 - level) - 1 diseased patients.
    """
    if not images.is_diseased.any():
        raise DataError(
            "decision.rule=sensitivity: no validation image is of a disease; choose "
            "decision.rule=most-probable, or larger splits (data.val_fraction)"
        )
    scores, groups = images.scores[images.is_diseased], images.groups[images.is_diseased]
    names, patient = np.unique(groups, return_inverse=True)
    n, allowed = len(names), 1 - level
    if 1 / (n + 1) > allowed + ROUNDING:
        needed = math.ceil(1 / allowed - 1e-9) - 1
        raise DataError(
            f"decision.rule=sensitivity: decision.level={level:g} needs {needed} diseased patients "
            f"among the validation images, and there are {n}; lower it to "
            f"{math.floor(1000 * n / (n + 1)) / 1000:g} or less, or enlarge data.val_fraction"
        )
    order = np.argsort(scores, kind="stable")
    share = 1 / np.bincount(patient)[patient]
    risk = np.cumsum(share[order]) / n
    is_allowed = n / (n + 1) * risk + 1 / (n + 1) <= allowed + ROUNDING
    # of the first image that may not be missed
    return threshold_below(images.scores, scores[order][np.argmin(is_allowed)])
