"""Settings of the label samplers."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import numpy as np

from gemix.core.config_schema import Config, ConfigIssue, NonNegative, Range

# below 0.05 all gamma variates of a row can underflow to 0
Concentration = Annotated[float, Range(low=0.05, high=1e6)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelConfig(Config):
    """Parameters of the label samplers; each sampler uses its own.

    `class_weights` are the relative odds of the dominant class (null: uniform).
    """

    temperature: Annotated[float, Range(low=1e-3, high=1e3)] = 1.0
    bias: float = 2.0
    noise_std: NonNegative = 1.0
    dirichlet_dominant: Concentration = 2.0
    dirichlet_other: Concentration = 1.0
    pair_beta: Concentration = 1.0
    class_weights: tuple[NonNegative, ...] | None = None

    def validate(self) -> list[ConfigIssue]:
        """Require a finite bias, and one positive class weight at least."""
        problems = []
        if not np.isfinite(self.bias):
            problems.append(ConfigIssue("bias", self.bias, "a finite number"))
        weights = self.class_weights
        if weights is not None and not 0 < sum(weights) < np.inf:
            problems.append(
                ConfigIssue("class_weights", list(weights), "finite weights, one or more above 0")
            )
        return problems
