"""Settings of the label samplers."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from gemix.core.config_schema import Config, ConfigIssue, Location, NonNegative, Range

# below 0.05 all gamma variates of a row can underflow to 0
Concentration = Annotated[float, Range(low=0.05, high=1e6)]
WeightsName = Literal["uniform", "real", "inverse_frequency", "inverse_recall"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelConfig(Config):
    """Parameters of the label samplers; each sampler uses its own."""

    temperature: Annotated[
        float, Range(1e-3, 1e3), "softmax: temperature T; the higher, the softer the labels."
    ] = 1.0
    bias: Annotated[
        float, Range(-1e6, 1e6), "softmax: what is added to the logit of the dominant class."
    ] = 2.0
    noise_std: Annotated[
        float, Range(0, 1e6), "softmax: standard deviation of the logits' Gaussian noise."
    ] = 1.0
    dirichlet_dominant: Annotated[
        Concentration, "dirichlet, dirichlet_pair: concentration of the dominant class."
    ] = 2.0
    dirichlet_other: Annotated[
        Concentration, "dirichlet, dirichlet_pair: concentration of every other class."
    ] = 1.0
    pair_beta: Annotated[
        Concentration, "dirichlet_pair: parameter a of the blend lambda ~ Beta(a, a)."
    ] = 1.0
    path_steps: Annotated[
        int,
        Range(2, 10_000),
        "pair_path: evenly spaced labels on the line between two classes, both ends included.",
    ] = 11
    class_weights: Annotated[
        tuple[NonNegative, ...] | WeightsName | None,
        "Odds of the dominant class: one number a class, or a name for them (see "
        "docs/evaluation.md); null: uniform.",
    ] = None
    recall_of: Annotated[
        str | None,
        Location(),
        "class_weights=inverse_recall: directory of the trained classifier, a path or s3:// URL.",
    ] = None

    def validate(self) -> list[ConfigIssue]:
        """Require one positive class weight at least, and a classifier where its recall counts."""
        issues, weights = [], self.class_weights
        if isinstance(weights, tuple) and not sum(weights) > 0:
            allowed = "weights, one or more above 0"
            issues.append(ConfigIssue("class_weights", list(weights), allowed))
        if weights == "inverse_recall" and not self.recall_of:
            allowed = "the directory of a trained classifier, whose recall class_weights asks for"
            issues.append(ConfigIssue("recall_of", self.recall_of, allowed))
        if weights != "inverse_recall" and self.recall_of is not None:
            allowed = "null: only class_weights=inverse_recall reads it"
            issues.append(ConfigIssue("recall_of", self.recall_of, allowed))
        return issues
