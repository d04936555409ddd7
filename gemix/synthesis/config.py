"""Settings of synthetic sets."""

from __future__ import annotations

import dataclasses
from typing import Literal

from gemix.core.config_schema import ConfigIssue, Count, NonNegative, Positive
from gemix.gan.config import SamplingConfig
from gemix.labels.registry import SAMPLERS

Method = Literal[tuple(SAMPLERS)]  # a label sampler's name


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynthesisConfig(SamplingConfig):
    """How many images are made, of which soft labels, sampled how.

    One set of images is made for each of `methods` and added to the real training set. `count`
    is the number N of images; where it is null N is `ratio` times the real training images.
    """

    methods: tuple[Method, ...] = ("softmax", "dirichlet", "onehot")
    count: Positive | None = None
    ratio: NonNegative = 1.0
    shard_rows: Positive = 8192
    seed: Count = 0

    def validate(self) -> list[ConfigIssue]:
        """Methods are given, and each once."""
        if self.methods and len(set(self.methods)) == len(self.methods):
            return []
        return [
            ConfigIssue("methods", list(self.methods), "a list of one or more different methods")
        ]

    def images(self, real_images: int) -> int:
        """The number N for a training set of `real_images` real images, at least 1."""
        return self.count or max(1, round(self.ratio * real_images))
