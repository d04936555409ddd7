"""Settings of synthetic sets."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from gemix.core.config_schema import ConfigIssue, Range, Seed
from gemix.gan.config import Precision, SamplingConfig
from gemix.labels.registry import SAMPLERS

Method = Literal[tuple(SAMPLERS)]  # a label sampler's name


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynthesisConfig(SamplingConfig):
    """How many images are made, of which soft labels, sampled how."""

    methods: Annotated[
        tuple[Method, ...],
        "Label samplers; each makes one set, which is added to the real training set.",
    ] = ("softmax", "dirichlet", "onehot")
    count: Annotated[
        int | None, Range(1, 10**9), "Images of each set; null: ratio times the real ones."
    ] = None
    ratio: Annotated[
        float, Range(0, 1000), "Images of each set, as a multiple of the real training images."
    ] = 1.0
    shard_rows: Annotated[int, Range(1, 1_000_000), "Images in a shard."] = 8192
    seed: Annotated[Seed, "Seed of labels, latents and noise."] = 0
    precision: Annotated[
        Precision,
        "Precision of convolutions; auto: bfloat16 where hardware is fast, some grey levels apart.",
    ] = "auto"

    def validate(self) -> list[ConfigIssue]:
        """Require one or more methods, each once."""
        if self.methods and len(set(self.methods)) == len(self.methods):
            return []
        return [
            ConfigIssue("methods", list(self.methods), "a list of one or more different methods")
        ]

    def images(self, real_images: int) -> int:
        """Return the images of a set for `real_images` real training images, at least 1."""
        return self.count or max(1, round(self.ratio * real_images))
