"""Settings of the curation of a synthetic set."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from gemix.core.config_schema import Config, ConfigIssue, Fraction, Range, Seed
from gemix.synthesis.curation.registry import RULES

Rule = Literal[tuple(RULES)]  # type: ignore[valid-type]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurationConfig(Config):
    """Rules that leave images out of a synthetic set, and their thresholds."""

    rules: Annotated[
        tuple[Rule, ...],
        "Rules that images are removed by, in this order; discriminator needs a checkpoint of the "
        "generator's training.",
    ] = ("memorized", "near_duplicate", "realism")
    lowest_share: Annotated[
        Fraction,
        "realism, discriminator: share of the images of each class asked for that is removed, "
        "those of the lowest scores.",
    ] = 0.1
    near_quantile: Annotated[
        float,
        Range(0, 0.5),
        "near_duplicate: share of the real images that are as near to another patient as "
        "duplicates are to each other.",
    ] = 0.01
    real_images: Annotated[
        int, Range(2, 10_000_000), "Most training images to compare with, drawn at random."
    ] = 20_000
    seed: Annotated[Seed, "Seed of that draw."] = 0

    def validate(self) -> list[ConfigIssue]:
        """Require one or more rules, each once, and a share that leaves something."""
        issues = []
        if not self.rules or len(set(self.rules)) < len(self.rules):
            wanted = "a list of one or more different rules"
            issues.append(ConfigIssue("rules", list(self.rules), wanted))
        if self.lowest_share == 1:
            issues.append(ConfigIssue("lowest_share", self.lowest_share, "below 1"))
        return issues
