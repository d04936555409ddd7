"""The interface of a label sampler."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from gemix.labels.config import LabelConfig


class LabelSampler(Protocol):
    """Draw a block of soft labels; :mod:`gemix.labels.testing` holds its contract."""

    def __call__(
        self, rng: np.random.Generator, count: int, classes: int, config: LabelConfig
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw soft labels.

        Args:
            rng: the only source of randomness.
            count: number of labels.
            classes: K, at least 2.
            config: parameters of all samplers.

        Returns:
            theta, float64 [count, K], rows non-negative and summing to 1, and the dominant
            classes, int64 [count].
        """


def dominant_classes(
    rng: np.random.Generator, count: int, classes: int, config: LabelConfig
) -> np.ndarray:
    """Draw dominant classes c ~ Categorical(`class_weights`), given in numbers: int64 [count]."""
    if config.class_weights is None:
        return rng.integers(classes, size=count)
    weights = np.asarray(config.class_weights)
    return rng.choice(classes, size=count, p=weights / weights.sum())
