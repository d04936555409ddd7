"""Settings of the image metrics."""

from __future__ import annotations

import dataclasses
import difflib

from gemix.core.config_schema import Config, ConfigIssue, Count, Fraction, Positive
from gemix.evaluation.image_quality.features.registry import EXTRACTORS

FEWEST = 50  # fewer images than that make no neighbourhoods and no error of a KID


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricsConfig(Config):
    """What a training's images are measured with, on how many, and how often.

    `images` are generated for each evaluation and held against at most `real_images` of the
    training set; 0 switches the metrics off. `extractor` is ``<kind>:<what>``: a pretrained timm
    model (``timm:inception_v3``), the same with seeded untrained weights (``timm-random:``), a
    TorchScript or ONNX file, or a directory with a classifier of gemix (``bundle:``). A training
    evaluates at each `every`-th of its snapshots, unless that would take more than the share
    `budget` of its time so far; the last evaluation always runs. With `use_best` the generator
    that a training leaves is that of the best evaluated snapshot in place of the last.
    """

    images: Count = 5000
    real_images: Positive = 50_000
    extractor: str = "timm-random:resnet18d"
    every: Positive = 1
    budget: Fraction = 0.05
    use_best: bool = False

    def validate(self) -> list[ConfigIssue]:
        """An extractor of a known kind; enough images; no choice of the best without a measure."""
        kind, _, what = self.extractor.partition(":")
        problems = []
        if kind not in EXTRACTORS or not what:
            nearest = difflib.get_close_matches(kind, EXTRACTORS, n=1)
            allowed = "one of " + ", ".join(f"{known}:<what>" for known in EXTRACTORS)
            problems.append(
                ConfigIssue("extractor", self.extractor, allowed, nearest[0] if nearest else None)
            )
        for name in ("images", "real_images"):
            value = getattr(self, name)
            if 0 < value < FEWEST:
                allowed = f"{FEWEST} or more" + (", or 0 for none" if name == "images" else "")
                problems.append(ConfigIssue(name, value, allowed))
        if self.use_best and not self.images:
            problems.append(ConfigIssue("use_best", True, "false, where images is 0"))
        return problems
