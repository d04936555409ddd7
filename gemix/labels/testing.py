"""The contract of a label sampler, as a test class to subclass (pytest collects it)::

class TestMySampler(LabelSamplerContract):
    sampler = staticmethod(my_labels)
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gemix.labels.base import LabelSampler
from gemix.labels.config import LabelConfig
from gemix.labels.sampling import draw_labels


class LabelSamplerContract:
    """Contract of a label sampler; subclass it and set `sampler`.

    Attributes:
        sampler: the sampler under test.
        configs: settings to try; add those of parameters that the sampler brings along.
    """

    sampler: LabelSampler
    configs: ClassVar[tuple[LabelConfig, ...]] = (
        LabelConfig(),
        LabelConfig(
            temperature=1e-3,
            dirichlet_dominant=1e5,
            dirichlet_other=0.05,
            pair_beta=0.05,
            path_steps=2,
        ),
        LabelConfig(
            temperature=1e3,
            noise_std=0,
            dirichlet_dominant=0.05,
            dirichlet_other=1e5,
            path_steps=10_000,
        ),
    )

    def draw(
        self,
        config: LabelConfig | None = None,
        *,
        count: int = 2000,
        classes: int = 3,
        seed: int = 0,
        start: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return theta, float32 [count, classes], and the dominant classes, int64 [count]."""
        return draw_labels(
            self.sampler,
            config or self.configs[0],
            count=count,
            classes=classes,
            seed=seed,
            start=start,
        )

    def test_labels_are_distributions(self) -> None:
        """Labels are finite, non-negative and sum to 1, for any number of classes."""
        for config in self.configs:
            for classes in (2, 3, 20):
                theta, dominant = self.draw(config, classes=classes)
                assert theta.shape == (2000, classes) and theta.dtype == np.float32
                assert np.isfinite(theta).all() and (theta >= 0).all()
                assert np.abs(theta.sum(axis=1, dtype=np.float64) - 1).max() < 1e-6
                assert dominant.shape == (2000,) and dominant.dtype == np.int64
                assert dominant.min() >= 0 and dominant.max() < classes

    def test_labels_are_functions_of_seed_and_index(self) -> None:
        """A part of a set equals the same rows of the whole; other seeds give other labels."""
        theta, dominant = self.draw(count=9000)
        assert np.array_equal(self.draw(count=9000)[0], theta)
        assert not np.array_equal(self.draw(count=9000, seed=1)[0], theta)
        for start, count in ((0, 10), (4090, 12), (8191, 3), (5000, 4000)):
            part, classes = self.draw(count=count, start=start)
            np.testing.assert_array_equal(part, theta[start : start + count])
            np.testing.assert_array_equal(classes, dominant[start : start + count])

    def test_nothing_is_drawn_from_the_global_generator(self) -> None:
        """The generator that is passed in is the only source of randomness."""
        before = np.random.get_state()[1].copy()
        self.draw()
        assert np.array_equal(np.random.get_state()[1], before)

    def test_dominant_classes_are_uniform_by_default(self) -> None:
        """Without `class_weights` every class dominates equally often."""
        _, dominant = self.draw(count=20000)
        np.testing.assert_allclose(np.bincount(dominant) / 20000, 1 / 3, atol=0.02)

    def test_the_dominant_class_has_the_largest_mean_weight(self) -> None:
        """Over the labels of a class its own weight is the largest."""
        theta, dominant = self.draw(count=20000)
        for k in range(3):
            assert theta[dominant == k].mean(axis=0).argmax() == k
