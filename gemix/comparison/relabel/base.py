"""The interface of a relabelling."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels:
    """Soft labels of a training set; rows sum to 1.

    Attributes:
        real: of the real images, float32 [N, K].
        synthetic: of the synthetic ones, float32 [M, K]; M may be 0.
        asked: labels that the generator was given for them, float32 [M, K].
        reference: of a whole training set with soft labels: this one, or for real images alone
            that of the first method with synthetic ones, float32 [P, K].
    """

    real: np.ndarray
    synthetic: np.ndarray
    asked: np.ndarray
    reference: np.ndarray


class Relabelling(Protocol):
    """Give images other labels; :mod:`gemix.comparison.relabel.testing` holds its contract."""

    def __call__(self, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
        """Return new labels of the real and of the synthetic images, [N, K] and [M, K]."""
