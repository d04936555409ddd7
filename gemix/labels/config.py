"""Settings of the label samplers."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from gemix.core.config_schema import Config, ConfigIssue, NonNegative, Range

# below 0.05 all gamma variates of a row can underflow to 0
Concentration = Annotated[float, Range(low=0.05, high=1e6)]


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
        tuple[NonNegative, ...] | None,
        "Relative odds of the dominant class, one number a class; null means uniform.",
    ] = None

    def validate(self) -> list[ConfigIssue]:
        """Require one positive class weight at least."""
        weights = self.class_weights
        if weights is None or sum(weights) > 0:
            return []
        return [ConfigIssue("class_weights", list(weights), "weights, one or more above 0")]
