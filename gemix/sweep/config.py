"""Settings of a sweep: the search space, the objective and the budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from gemix.classifier.config import RecipeName, SyntheticShare, SyntheticWeight
from gemix.core.config_schema import (
    Config,
    ConfigIssue,
    Fraction,
    Location,
    Operational,
    Range,
    Seed,
)
from gemix.labels.config import Concentration
from gemix.labels.registry import SAMPLERS
from gemix.synthesis.config import LabelSource, Method

Temperature = Annotated[float, Range(1e-3, 1e3)]
Bias = Annotated[float, Range(-1e6, 1e6)]
Ratio = Annotated[float, Range(0, 1000)]
LearningRate = Annotated[float, Range(1e-8, 1.0)]

RANGES = (
    "ratio",
    "temperature",
    "bias",
    "dirichlet_dominant",
    "dirichlet_other",
    "pair_beta",
    "class_balance",
    "truncation_psi",
    "mixture",
    "synthetic_weight",
    "synthetic_share",
    "lr",
)
"""The settings that are a range, low and high."""

CHOICES = ("methods", "label_sources", "recipes", "models")
"""The settings that are a list of different values."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepConfig(Config):
    """Search space, objective and budget of a sweep.

    A range is a list of low and high; two equal numbers fix a parameter, and null leaves it as the
    sections ``labels``, ``synthesis`` and ``classifier`` have it.
    """

    ratio: Annotated[
        tuple[Ratio, ...],
        "Synthetic images as a multiple N of the real ones; from 0, which is none at all.",
    ] = (0.0, 2.0)
    ratio_step: Annotated[float, Range(0.001, 1000), "Distance of neighbouring ratios."] = 0.25
    methods: Annotated[tuple[Method, ...], "Label samplers to choose from."] = tuple(SAMPLERS)
    temperature: Annotated[
        tuple[Temperature, ...] | None, "softmax: temperatures T, on a logarithmic scale."
    ] = (0.1, 10.0)
    bias: Annotated[tuple[Bias, ...] | None, "softmax: biases b."] = (0.0, 6.0)
    dirichlet_dominant: Annotated[
        tuple[Concentration, ...] | None,
        "dirichlet, dirichlet_pair: concentrations of the dominant class, logarithmic.",
    ] = (0.5, 20.0)
    dirichlet_other: Annotated[
        tuple[Concentration, ...] | None,
        "dirichlet, dirichlet_pair: concentrations of every other class, logarithmic.",
    ] = None
    pair_beta: Annotated[
        tuple[Concentration, ...] | None, "dirichlet_pair: parameters a of the blend, logarithmic."
    ] = None
    class_balance: Annotated[
        tuple[Fraction, ...] | None,
        "Exponents g: a synthetic class has the weight n^-g for n real images; 0 is uniform.",
    ] = None
    truncation_psi: Annotated[tuple[Fraction, ...] | None, "Truncations of the generator."] = None
    label_sources: Annotated[
        tuple[LabelSource, ...] | None,
        "Where labels may come from; none: as synthesis.labels has it; null: all, with a teacher "
        "in place.",
    ] = None
    mixture: Annotated[
        tuple[Fraction, ...] | None, "labels=mixture: weights of what the teacher sees."
    ] = (0.0, 1.0)
    recipes: Annotated[
        tuple[RecipeName, ...],
        "Uses of synthetic images to choose from; none: classifier.recipe alone.",
    ] = ()
    synthetic_weight: Annotated[
        tuple[SyntheticWeight, ...] | None,
        "weight: weights of a synthetic image in the loss, logarithmic.",
    ] = (0.1, 1.0)
    synthetic_share: Annotated[
        tuple[SyntheticShare, ...] | None,
        "curriculum, pretrain: shares of synthetic images among all that are shown.",
    ] = (0.1, 0.9)
    lr: Annotated[
        tuple[LearningRate, ...] | None, "Learning rates of the classifier, logarithmic."
    ] = None
    models: Annotated[
        tuple[str, ...], "timm models to choose from; none: classifier.model alone."
    ] = ()
    objective: Annotated[
        Literal["constrained", "pareto"],
        "constrained: macro-F2, FNR bounded by fnr_margin; pareto: the front of both, unpruned.",
    ] = "constrained"
    fnr_margin: Annotated[
        float,
        Range(0, 1),
        "How far FNR and missed-disease rate may exceed those of real images alone.",
    ] = 0.01
    seeds: Annotated[
        int, Range(1, 1000), "Trainings of a trial, averaged; from classifier.seed."
    ] = 2
    fresh_seeds: Annotated[
        int,
        Range(0, 1000),
        Operational(),
        "Trainings on fresh seeds by which the winner is chosen, 2 or more; 0: no winner.",
    ] = 5
    grace_epochs: Annotated[
        int,
        Range(1, 100_000),
        Operational(),
        "Epochs before a trial may be stopped (ASHA's first rung).",
    ] = 2
    reduction_factor: Annotated[
        float,
        Range(1.5, 100),
        Operational(),
        "ASHA: of the trials at a rung one in so many goes on.",
    ] = 3.0
    hopeless_gap: Annotated[
        float | None,
        Range(0, 1),
        Operational(),
        "A trial this far below the best one on the same seeds ends after them; null: never.",
    ] = 0.05
    sampler: Annotated[
        Literal["gp", "tpe"],
        Operational(),
        "Optuna's sampler: Gaussian processes, or multivariate TPE.",
    ] = "gp"
    seed: Annotated[Seed, Operational(), "Seed of the sampler."] = 0
    trials: Annotated[int, Range(1, 1_000_000), Operational(), "Trials of the study in all."] = 30
    concurrent: Annotated[
        int | None,
        Range(1, 100_000),
        Operational(),
        "Trials at a time; null: as many as the cluster holds.",
    ] = None
    max_failures: Annotated[
        int, Range(1, 1000), Operational(), "Failed trials in a row after which a sweep ends."
    ] = 3
    study: Annotated[str, Operational(), "Name of the study in its database."] = "sweep"
    storage: Annotated[
        str | None,
        Operational(),
        Location(),
        "Database: postgresql://user@host/name, with PGPASSWORD; null: one in the work directory.",
    ] = None

    def validate(self) -> list[ConfigIssue]:
        """Require ranges that are not reversed, and choices that are not empty."""
        issues = [issue for name in RANGES for issue in _range_issues(name, getattr(self, name))]
        issues += [issue for name in CHOICES for issue in _choice_issues(name, getattr(self, name))]
        if not self.methods:
            issues.append(ConfigIssue("methods", [], "one or more samplers"))
        if not issues:
            issues += self._ratio_issues()
        if self.fresh_seeds == 1:
            allowed = "2 or more, since one training does not tell how trainings vary; or 0"
            issues.append(ConfigIssue("fresh_seeds", self.fresh_seeds, allowed))
        if not self.study:
            issues.append(ConfigIssue("study", self.study, "a name"))
        if self.storage is not None and urlsplit(self.storage).password is not None:
            allowed = "a URL without a password, which is read from PGPASSWORD or ~/.pgpass"
            issues.append(ConfigIssue("storage", without_password(self.storage), allowed))
        return issues

    def _ratio_issues(self) -> Iterator[ConfigIssue]:
        low, high = self.ratio
        if low != 0:
            allowed = "a range from 0: without synthetic images is the reference of every sweep"
            yield ConfigIssue("ratio", list(self.ratio), allowed)
        steps = high / self.ratio_step
        if not math.isclose(steps, round(steps), abs_tol=1e-9):
            allowed = f"a divisor of {high:g}, the highest ratio"
            yield ConfigIssue("ratio_step", self.ratio_step, allowed)


def without_password(url: str) -> str:
    """Return a URL with stars for its password."""
    password = urlsplit(url).password
    return url if password is None else url.replace(f":{password}@", ":***@", 1)


def _choice_issues(name: str, value: tuple[str, ...] | None) -> Iterator[ConfigIssue]:
    if value is not None and len(set(value)) < len(value):
        yield ConfigIssue(name, list(value), "a list of different values")


def _range_issues(name: str, value: tuple[Any, ...] | None) -> Iterator[ConfigIssue]:
    if value is None:
        return
    if len(value) != 2:
        yield ConfigIssue(name, list(value), "two numbers, low and high, or null")
    elif value[0] > value[1]:
        yield ConfigIssue(name, list(value), f"low before high: [{value[1]:g}, {value[0]:g}]")
