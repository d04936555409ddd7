"""Settings of the image metrics."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Annotated, Literal

from gemix.core.config_schema import Config, ConfigIssue, Fraction, Location, Range
from gemix.evaluation.image_quality.features.registry import EXTRACTORS

FEWEST = 50  # images that neighbourhoods and the standard error of KID need


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricsConfig(Config):
    """How the images of a GAN training are measured, on how many, and how often."""

    images: Annotated[
        int, Range(0, 10_000_000), "Images generated for each evaluation; 0: no metrics."
    ] = 5000
    real_images: Annotated[
        int, Range(1, 10_000_000), "Most images of the training set to compare with."
    ] = 50_000
    extractor: Annotated[
        str,
        Location(),
        "Features: timm:<model>, timm-random:<model> (untrained), torchscript:<file>, onnx:<file>, "
        "bundle:<folder>.",
    ] = "timm-random:resnet18d"
    every: Annotated[int, Range(1, 1_000_000), "Evaluate every n-th snapshot, and the last."] = 1
    budget: Annotated[
        Fraction, "Largest share of the training time for evaluations; the last always runs."
    ] = 0.05
    use_best: Annotated[
        bool, "Whether to keep the generator of the best evaluated snapshot instead of the last."
    ] = False

    best_by: Annotated[
        Literal["images", "labels"],
        "What ranks snapshots: KID or FID, or label agreement, which needs a teacher.",
    ] = "images"

    def validate(self) -> list[ConfigIssue]:
        """Require a known kind of extractor, enough images, and a metric where the best is kept."""
        kind, _, what = self.extractor.partition(":")
        issues = []
        if kind not in EXTRACTORS or not what:
            nearest = difflib.get_close_matches(kind, EXTRACTORS, n=1)
            allowed = "one of " + ", ".join(f"{known}:<what>" for known in EXTRACTORS)
            issues.append(
                ConfigIssue("extractor", self.extractor, allowed, nearest[0] if nearest else None)
            )
        for name in ("images", "real_images"):
            value = getattr(self, name)
            if 0 < value < FEWEST:
                allowed = f"{FEWEST} or more" + (", or 0 for none" if name == "images" else "")
                issues.append(ConfigIssue(name, value, allowed))
        if self.use_best and not self.images:
            issues.append(ConfigIssue("use_best", True, "false, where images is 0"))
        return issues
