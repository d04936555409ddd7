"""Settings of decisions."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from gemix.classifier.decision.registry import RULES
from gemix.core.config_schema import Config, Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecisionConfig(Config):
    """How a classifier's outputs become probabilities and classes, fitted on validation images."""

    rule: Annotated[
        Literal[tuple(RULES)],
        "How an image gets its class: the most probable, or disease from a threshold on.",
    ] = "most-probable"
    level: Annotated[
        float, Range(0.01, 0.999), "rule=specificity or sensitivity: the least that is kept."
    ] = 0.9
    calibrate: Annotated[
        bool, "Whether probabilities are calibrated by temperature scaling; classes stay the same."
    ] = True
