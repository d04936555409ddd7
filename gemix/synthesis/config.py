"""Settings of synthetic sets."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from gemix.core.config_schema import ConfigIssue, Fraction, Location, Range, Seed
from gemix.gan.config import Precision, SamplingConfig
from gemix.labels.registry import SAMPLERS

Method = Literal[tuple(SAMPLERS)]  # a label sampler's name
LABEL_SOURCES = ("asked", "teacher", "mixture")
LabelSource = Literal[LABEL_SOURCES]


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

    labels: Annotated[
        LabelSource,
        "Labels of the images: as asked for, as the teacher sees them, or a mixture of both.",
    ] = "asked"
    mixture: Annotated[Fraction, "Weight of what the teacher sees in labels=mixture."] = 0.5
    accept: Annotated[
        Literal["all", "agreeing"],
        "Images that are kept: all, or those in which the teacher sees most of the class most "
        "asked for; others are drawn again.",
    ] = "all"
    min_seen: Annotated[
        tuple[Fraction, ...] | None,
        "accept=agreeing: weight that the teacher must see of that class, one number a class.",
    ] = None
    attempts: Annotated[
        int, Range(1, 10_000), "accept=agreeing: draws of an image before the set is given up."
    ] = 50
    fidelity_images: Annotated[
        int,
        Range(0, 10**9),
        "The first images of a set, at which all teachers look to measure label fidelity; 0: none.",
    ] = 2000
    generator: Annotated[
        str | None,
        Location(),
        "Directory of the generator, of another site for one; null: that of the work directory.",
    ] = None
    teacher: Annotated[
        str | None,
        Location(),
        "Directory of the teacher, of another site for one; null: that of the work directory.",
    ] = None

    def validate(self) -> list[ConfigIssue]:
        """Require one or more methods, each once, and thresholds where they are used alone."""
        issues = []
        if not self.methods or len(set(self.methods)) < len(self.methods):
            wanted = "a list of one or more different methods"
            issues.append(ConfigIssue("methods", list(self.methods), wanted))
        if self.min_seen is not None and self.accept == "all":
            wanted = "null, or synthesis.accept=agreeing beside it"
            issues.append(ConfigIssue("min_seen", list(self.min_seen), wanted))
        return issues

    @property
    def needs_teacher(self) -> bool:
        """Return whether labels or images depend on what a teacher sees."""
        return self.labels != "asked" or self.accept != "all"

    def images(self, real_images: int) -> int:
        """Return the images of a set for `real_images` real training images, at least 1."""
        return self.count or max(1, round(self.ratio * real_images))
