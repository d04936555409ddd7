"""The contract of an image metric, as a test class to subclass (pytest collects it)::

class TestMyMetric(ImageMetricContract):
    metric = MyMetric()
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gemix.evaluation.image_quality.base import ImageMetric


class ImageMetricContract:
    """Contract of an image metric; subclass it and set `metric`.

    Attributes:
        metric: the metric under test.
    """

    metric: ImageMetric

    def features(self, count: int, *, seed: int = 0, shift: float = 0.0, width: int = 16) -> Tensor:
        """Return standard normal features, float32 [count, width], moved by `shift`."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, width, generator=generator) + shift

    def values(self, real: Tensor, fakes: Tensor) -> dict[str, float]:
        """Return the metric's values of `fakes` against `real`."""
        return self.metric.compute({"features": real, **self.metric.real_statistics(real)}, fakes)

    def test_outputs_are_described(self) -> None:
        """Names are unique identifiers, and each output is shown with a label in a chart."""
        names = self.metric.names
        assert names and len(set(names)) == len(names)
        assert all(name.isidentifier() for name in names)
        for output in self.metric.outputs:
            assert output.label and output.chart
            format(0.5, output.format)

    def test_statistics_have_the_names_that_are_declared(self) -> None:
        """The arrays that are cached are the declared ones, and tensors."""
        found = self.metric.real_statistics(self.features(60))
        assert set(found) == set(self.metric.statistics) and "features" not in found
        assert all(isinstance(value, Tensor) for value in found.values())

    def test_values_are_finite_for_all_numbers_of_images(self) -> None:
        """Every declared value is a finite float from 50 images on."""
        for count in range(50, 131):
            real = self.features(count, seed=count)
            for fakes in (self.features(180 - count, seed=1, shift=0.5), real):
                found = self.values(real, fakes)
                assert set(found) == set(self.metric.names)
                for name, value in found.items():
                    assert isinstance(value, float) and math.isfinite(value), (name, count)

    def test_values_are_finite_for_constant_images(self) -> None:
        """Values of sets of equal images are finite too."""
        constant = torch.full((60, 16), 0.3)
        for real, fakes in (
            (constant, constant),
            (constant, self.features(60)),
            (self.features(60), constant),
        ):
            assert all(math.isfinite(value) for value in self.values(real, fakes).values())

    def test_inputs_are_left_alone_and_nothing_is_drawn(self) -> None:
        """Features are not changed in place, and no random numbers are drawn."""
        real, fakes, state = self.features(60), self.features(70, seed=1), torch.get_rng_state()
        copies = real.clone(), fakes.clone()
        first = self.values(real, fakes)
        assert torch.equal(real, copies[0]) and torch.equal(fakes, copies[1])
        assert torch.equal(torch.get_rng_state(), state)
        assert self.values(real, fakes) == first

    def test_the_direction_is_the_declared_one(self) -> None:
        """A set like the real one is better than one far away."""
        real = self.features(200)
        near = self.values(real, self.features(200, seed=1))
        far = self.values(real, self.features(200, seed=1, shift=4.0))
        for output in self.metric.outputs:
            better = near[output.name] > far[output.name]
            assert better == output.higher_is_better, output.name
