"""Settings of the privacy audit of a set of synthetic images."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from gemix.core.config_schema import Config, ConfigIssue, Range, Seed

SpaceName = Literal["pixels", "features"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditConfig(Config):
    """Settings of the privacy audit: the images compared, and the thresholds of its verdict."""

    in_pipeline: Annotated[
        bool, "Whether gemix pipeline audits the sets that it makes, before it trains on them."
    ] = True
    images: Annotated[
        int,
        Range(1, 1_000_000),
        "Most synthetic images, members and held-out images to compare.",
    ] = 5000
    real_images: Annotated[
        int, Range(1, 10_000_000), "Most training images to search for the nearest of each image."
    ] = 20_000
    spaces: Annotated[
        tuple[SpaceName, ...],
        "Distances are those of pixels (small copies, moved and mirrored) or metrics.extractor.",
    ] = ("pixels", "features")
    fail_auc: Annotated[
        float,
        Range(0.5, 1),
        "AUC of membership inference from which a set fails, unless chance or the split explain.",
    ] = 0.6
    pass_auc: Annotated[
        float, Range(0.5, 1), "A set passes if the interval of every such AUC ends below this."
    ] = 0.65
    min_patients: Annotated[
        int, Range(2, 1_000_000), "Fewest members and fewest held-out patients for a verdict."
    ] = 20
    near_quantile: Annotated[
        float,
        Range(0.001, 0.5),
        "Share of real images that count as near to another patient.",
    ] = 0.05
    max_near_ratio: Annotated[
        float,
        Range(1, 1000),
        "Largest share of synthetic images that are as near, over that of real ones.",
    ] = 3.0
    seed: Annotated[Seed, "Seed of samples, halves and bootstrap."] = 0

    def validate(self) -> list[ConfigIssue]:
        """Require one or more spaces, each once, and thresholds that do not contradict."""
        issues = []
        if not self.spaces or len(set(self.spaces)) < len(self.spaces):
            allowed = "a list of one or more different spaces"
            issues.append(ConfigIssue("spaces", list(self.spaces), allowed))
        if self.pass_auc < self.fail_auc:
            allowed = f"at least fail_auc, {self.fail_auc:g}"
            issues.append(ConfigIssue("pass_auc", self.pass_auc, allowed))
        if self.images < self.min_patients:
            allowed = f"at least min_patients, {self.min_patients}"
            issues.append(ConfigIssue("images", self.images, allowed))
        return issues
