"""Settings of a comparison."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from gemix.comparison.method import Method, is_set_name
from gemix.core.config_schema import Config, ConfigIssue, Operational, Range, Seed
from gemix.core.errors import ConfigError
from gemix.labels.registry import SAMPLERS

CGAN = "cgan"  # the set of the paper's baseline
Share = Annotated[float, Range(1e-4, 1.0)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareConfig(Config):
    """Which methods are compared, and how often each is repeated."""

    methods: Annotated[
        tuple[str, ...],
        "real, repeated, held-back or a synthetic set, with what changes its use: "
        "softmax+cutmix+pretrain+hard.",
    ] = ("real", "real+cutmix", "softmax", "onehot", "softmax+pretrain")
    sets: Annotated[
        tuple[str, ...],
        "Sets outside the work directory as name=directory or URL; several of one name are of "
        "independently trained generators.",
    ] = ()
    generator: Annotated[
        Literal["shared", "retrained"],
        "Generator and teachers of synthetic sets: the work directory's for all draws of patients, "
        "or each draw's own.",
    ] = "shared"
    gan_seeds: Annotated[
        int,
        Range(1, 100),
        "Generators of each synthetic set, of gan.seed and the seeds after it; what the work "
        "directory lacks is trained.",
    ] = 1
    models: Annotated[
        tuple[str, ...], "timm models, each compared by itself; empty: classifier.model."
    ] = ()
    seeds: Annotated[int, Range(1, 1000), "Trainings of each method on the same images."] = 3
    fractions: Annotated[
        tuple[Share, ...],
        "Shares of the training patients of each class that are used, each compared by itself.",
    ] = (1.0,)
    draws: Annotated[
        int,
        Range(1, 1000),
        "Draws of those patients, the same for all methods; fraction 1 has only one.",
    ] = 1
    ratio: Annotated[
        float | None,
        Range(0, 1000),
        "Synthetic images for each real one, a random part of each set; null: all.",
    ] = None
    folds: Annotated[
        tuple[str, ...],
        "Work directories of the folds of a cross-validation, compared before, whose test sets are "
        "pooled.",
    ] = ()
    budget: Annotated[
        Literal["steps", "exposures"],
        "What methods have in common: optimizer steps, or how often each real image is shown.",
    ] = "steps"
    baseline: Annotated[str, "The method that the others are compared with."] = "real"
    controls: Annotated[
        tuple[str, ...],
        "Simpler methods: another one helps only if it is better than those that are compared.",
    ] = ("repeated", "real+cutmix")
    specificity_loss: Annotated[
        float,
        Range(0.0, 1.0),
        "What the row 'threshold moved' may lose of the baseline's specificity on validation.",
    ] = 0.05
    seed: Annotated[Seed, "Seed of the draws of patients and of the resamples."] = 0
    keep_weights: Annotated[
        bool, Operational(), "Whether to keep the weights of classifiers after the test."
    ] = False

    def validate(self) -> list[ConfigIssue]:
        """Require methods that can be read, each once, the baseline among them."""
        issues = []
        for name in ("methods", "sets", "models", "fractions", "folds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                issues.append(ConfigIssue(name, list(values), "each once"))
        for given in self.sets:
            name, _, url = given.partition("=")
            if not url or not is_set_name(name):
                wanted = "name=directory, the name a word other than real, repeated and held-back"
                issues.append(ConfigIssue("sets", given, wanted))
        for method in (*self.methods, *self.controls):
            try:
                number = self.generators_of(Method.parse(method))
            except ConfigError as error:
                issues.append(ConfigIssue("methods", method, str(error)))
                continue
            if self.seeds % number:
                wanted = f"a multiple of {number}, the generators of {method}"
                issues.append(ConfigIssue("seeds", self.seeds, wanted))
        if len(self.methods) < 2 or self.baseline not in self.methods:
            wanted = f"two or more methods, the baseline {self.baseline!r} among them"
            issues.append(ConfigIssue("methods", list(self.methods), wanted))
        if len(self.folds) == 1:
            issues.append(ConfigIssue("folds", list(self.folds), "two or more, or none"))
        if not self.fractions:
            issues.append(ConfigIssue("fractions", [], "one or more"))
        if not issues and self.trains_generators and not self.made_sets:
            wanted = "with a set that gemix makes, for compare.generator or gan_seeds to mean any"
            issues.append(ConfigIssue("methods", list(self.methods), wanted))
        if self.generator == "retrained":
            if not any(fraction < 1 for fraction in self.fractions):
                wanted = "one below 1, or compare.generator=shared"
                issues.append(ConfigIssue("fractions", list(self.fractions), wanted))
            if self.gan_seeds > 1:
                wanted = "1 with compare.generator=retrained: each draw has a generator of its own"
                issues.append(ConfigIssue("gan_seeds", self.gan_seeds, wanted))
        return issues

    @property
    def directories(self) -> dict[str, list[str]]:
        """Return the directories of `sets` by name."""
        found: dict[str, list[str]] = {}
        for given in self.sets:
            name, _, url = given.partition("=")
            found.setdefault(name, []).append(url)
        return found

    @property
    def synthetic_sets(self) -> tuple[str, ...]:
        """Return the names of the methods' synthetic sets, in their order."""
        names = (Method.parse(name).synthetic for name in self.methods)
        return tuple(dict.fromkeys(name for name in names if name))

    @property
    def made_sets(self) -> tuple[str, ...]:
        """Return those that gemix makes: of label samplers, and of the baseline."""
        known = {*SAMPLERS, CGAN} - {*self.directories}
        return tuple(name for name in self.synthetic_sets if name in known)

    @property
    def trains_generators(self) -> bool:
        """Return whether sets of label samplers are of generators that a comparison trains."""
        return self.generator == "retrained" or self.gan_seeds > 1

    def generators_of(self, method: Method) -> int:
        """Return how many generators made the images of a method for one draw, 1 for none."""
        name = method.synthetic or ""
        if name in self.directories:
            return len(self.directories[name])
        return self.gan_seeds if name in {*SAMPLERS, CGAN} else 1
