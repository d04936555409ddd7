"""The labels that the generator was given, whatever its images show."""

from __future__ import annotations

import numpy as np

from gemix.comparison.relabel.base import Labels


def asked(labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels asked for, where the set has those that a teacher saw."""
    return labels.real, labels.asked
