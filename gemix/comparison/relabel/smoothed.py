"""Label smoothing of all images to the mean entropy of soft labels: a control for softness alone.

Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016, section 7.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import entr

from gemix.comparison.relabel.base import Labels


def smoothed(labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Return (1 - e) one-hot + e / K for all images.

    e is such that the mean entropy is that of the reference, so that softness is all that the
    labels have in common with it.
    """
    classes = labels.real.shape[1]
    target = float(entr(labels.reference.astype(np.float64)).sum(axis=1).mean())
    share = _smoothing_of(min(target, np.log(classes) - 1e-9), classes)

    def smooth(rows: np.ndarray) -> np.ndarray:
        one_hot = np.eye(classes, dtype=np.float32)[rows.argmax(axis=1)]
        return ((1 - share) * one_hot + share / classes).astype(np.float32)

    return smooth(labels.real), smooth(labels.synthetic)


def _smoothing_of(entropy: float, classes: int) -> float:
    """Return the e at which smoothed one-hot labels have this entropy, in nats."""

    def excess(share: float) -> float:
        rest = share / classes
        return float(entr(1 - share + rest) + (classes - 1) * entr(rest)) - entropy

    return 0.0 if entropy <= 0 else float(brentq(excess, 0.0, 1.0))
