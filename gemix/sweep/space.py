"""The search space: parameters, the conditions under which they are read, and the first points."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from gemix.core.errors import ConfigError
from gemix.io.sweep_record import PUBLISHED, REFERENCE
from gemix.sweep.config import SweepConfig
from gemix.synthesis.config import LABEL_SOURCES

_DEFAULTS = {
    "ratio": 1.0,
    "method": "softmax",
    "temperature": 1.0,
    "bias": 2.0,
    "dirichlet_dominant": 2.0,
    "dirichlet_other": 1.0,
    "pair_beta": 1.0,
    "class_balance": 0.0,
    "truncation_psi": 1.0,
    "label_source": "asked",
    "mixture": 0.5,
    "recipe": "mix",
    "synthetic_weight": 0.5,
    "synthetic_share": 0.5,
}

_NEAR = 0.05

Params = Mapping[str, Any]
"""Values of the parameters that a trial reads, by name."""


class Suggesting(Protocol):
    """What suggests values: an :class:`optuna.Trial`, or Ray's wrapper of one."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a number of a range."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of some values."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
    """One dimension: a range of numbers, or a choice.

    Attributes:
        name: in the study.
        setting: dotted path of the setting that it changes; None where that is computed.
        low, high, step, log: of a range.
        choices: of a choice; empty for a range.
        reader: the choice that it depends on, and the values under which it is read; None if it
            depends on none.
        with_images: whether it is read only where there are synthetic images.
    """

    name: str
    setting: str | None
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    reader: tuple[str, tuple[str, ...]] | None = None
    with_images: bool = True

    @property
    def distribution(self) -> BaseDistribution:
        """Optuna's object for it."""
        if self.choices:
            return CategoricalDistribution(self.choices)
        return FloatDistribution(self.low, self.high, step=self.step, log=self.log)

    def suggest(self, trial: Suggesting) -> Any:
        """Return the value that a trial takes."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def is_active(self, params: Params) -> bool:
        """Return whether a trial of these values reads it."""
        if self.with_images and self.name != "ratio" and params["ratio"] == 0:
            return False  # there are no images that it could change
        return self.reader is None or params[self.reader[0]] in self.reader[1]

    def contains(self, value: Any) -> bool:
        """Return whether a value is one of its points."""
        if self.choices:
            return value in self.choices
        return self.low <= value <= self.high and (
            self.step is None or abs(value / self.step - round(value / self.step)) < 1e-9
        )

    def is_near(self, value: Any, other: Any) -> bool:
        """Return whether two values are the same, or less than a twentieth of the range apart."""
        if self.choices:
            return value == other
        ends = value, other, self.low, self.high
        one, two, low, high = map(math.log, ends) if self.log else ends
        return one == two or abs(one - two) < _NEAR * (high - low)

    def __str__(self) -> str:
        if self.choices:
            text = f"one of {', '.join(map(str, self.choices))}"
        else:
            text = f"{self.low:g} to {self.high:g}"
            text += f" in steps of {self.step:g}" if self.step else ", log" if self.log else ""
        return text + (f" for {', '.join(self.reader[1])}" if self.reader else "")


class SearchSpace:
    """The parameters of a sweep, in the order in which they are asked for.

    Args:
        config: its ranges; `label_sources` null searches none.
        lr, model: the classifier's where they are not searched; those of the first points.

    Raises:
        ConfigError: if the space does not contain `lr` and `model`, with which real images alone
            are the reference.
    """

    def __init__(self, config: SweepConfig, *, lr: float, model: str):
        self.parameters = tuple(_parameters(config))
        self._defaults = _DEFAULTS | {"lr": lr, "model": model}
        for parameter in self.parameters:
            value = self._defaults.get(parameter.name)
            if not parameter.with_images and not parameter.contains(value):
                raise ConfigError(
                    f"classifier.{parameter.name}={value} is the reference of the sweep, and none "
                    f"of its points: {parameter}; change either"
                )

    def suggest(self, trial: Suggesting) -> dict[str, Any]:
        """Return the values of a trial, of the parameters that it reads."""
        params: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.is_active(params):
                params[parameter.name] = parameter.suggest(trial)
        return params

    def first_points(self) -> dict[str, dict[str, Any]]:
        """Return the points that every sweep begins with, by name.

        Real images alone are a point of every space. The published default is left out where the
        ranges do not contain it.
        """
        points = {REFERENCE: self._defaults | {"ratio": 0.0}, PUBLISHED: self._defaults}
        return {
            name: self.active(point)
            for name, point in points.items()
            if all(p.contains(point[p.name]) for p in self.parameters if p.is_active(point))
        }

    @property
    def reference_is_a_point(self) -> bool:
        """Whether all trials without synthetic images are the same one, the first of a sweep."""
        return all(p.with_images for p in self.parameters)

    @property
    def sources_are_weights(self) -> bool:
        """Whether every label source is a point of one range, the weight of what a teacher sees."""
        by_name = {p.name: p for p in self.parameters}
        if not {"label_source", "mixture"} <= by_name.keys():
            return False
        weights = by_name["mixture"]
        return (weights.low, weights.high) == (0, 1) and set(LABEL_SOURCES) == set(
            by_name["label_source"].choices
        )

    def with_source(self, params: Params) -> dict[str, Any]:
        """Return a point without a label source with the one that its weight comes to."""
        weight = params["mixture"]
        is_end = min(weight, 1 - weight) < _END
        source = ("teacher" if weight > 0.5 else "asked") if is_end else "mixture"
        return {**params, "label_source": source}

    def active(self, point: Params) -> dict[str, Any]:
        """Return the parameters that a trial of a point reads."""
        return {p.name: point[p.name] for p in self.parameters if p.is_active(point)}

    def are_near(self, params: Params, other: Params) -> bool:
        """Return whether two trials read the same parameters, and all values are near."""
        return params.keys() == other.keys() and all(
            p.is_near(params[p.name], other[p.name]) for p in self.parameters if p.name in params
        )

    def filled(self, params: Params) -> dict[str, Any]:
        """Return a value of each parameter, of one that a trial does not read as well.

        It is the one that comes to the same, where there is one, so that a model learns of a range
        from the choices at its ends too; else a fixed one.
        """
        same = dict(_SAME[choice] for choice in params.items() if choice in _SAME)
        return {p.name: params.get(p.name, self._fixed(p, same)) for p in self.parameters}

    def _fixed(self, parameter: Parameter, same: Params) -> Any:
        value = same.get(parameter.name, self._defaults[parameter.name])
        if parameter.contains(value):
            return value
        return parameter.choices[0] if parameter.choices else parameter.low

    def settings(self, params: Params, class_counts: Sequence[int]) -> dict[str, Any]:
        """Return the settings that a trial changes: values by dotted path.

        Args:
            class_counts: real training images of each class, from which class weights follow.
        """
        changed = {
            p.setting: params[p.name]
            for p in self.parameters
            if p.setting is not None and p.name in params
        }
        if "class_balance" in params:
            changed["labels.class_weights"] = class_weights(class_counts, params["class_balance"])
        return changed

    def describe(self) -> dict[str, str]:
        """Return the space in words, one entry a parameter."""
        return {parameter.name: str(parameter) for parameter in self.parameters}


def class_weights(class_counts: Sequence[int], balance: float) -> list[float] | None:
    """Return weights n^-g of the classes, of mean 1; None, which is uniform, for g = 0.

    Args:
        class_counts: n, images of each class; a class without any counts as one image.
        balance: g, from 0 (uniform) to 1 (the rarer a class, the more synthetic images it gets).
    """
    if balance == 0:
        return None
    weights = [max(1, count) ** -balance for count in class_counts]
    mean = sum(weights) / len(weights)
    return [weight / mean for weight in weights]


_END = 0.05  # weights of a teacher this near to 0 or 1 are taken for it
_SAME = {  # choices, and the value of a range that comes to the same under another choice
    ("label_source", "asked"): ("mixture", 0.0),
    ("label_source", "teacher"): ("mixture", 1.0),
    ("recipe", "mix"): ("synthetic_weight", 1.0),
}
_DIRICHLETS = ("dirichlet", "dirichlet_pair")
_CHOICES = (  # name, setting that it changes, setting of the sweep, whether it needs images
    ("method", None, "methods", True),
    ("label_source", "synthesis.labels", "label_sources", True),
    ("recipe", "classifier.recipe", "recipes", True),
    ("model", "classifier.model", "models", False),
)
_RANGES = (  # name, setting that it changes, whether its scale is logarithmic, who reads it
    ("temperature", "labels.temperature", True, ("method", ("softmax",))),
    ("bias", "labels.bias", False, ("method", ("softmax",))),
    ("dirichlet_dominant", "labels.dirichlet_dominant", True, ("method", _DIRICHLETS)),
    ("dirichlet_other", "labels.dirichlet_other", True, ("method", _DIRICHLETS)),
    ("pair_beta", "labels.pair_beta", True, ("method", ("dirichlet_pair",))),
    ("class_balance", None, False, None),
    ("truncation_psi", "synthesis.truncation_psi", False, None),
    ("mixture", "synthesis.mixture", False, ("label_source", ("mixture",))),
    ("synthetic_weight", "classifier.synthetic_weight", True, ("recipe", ("weight",))),
    (
        *("synthetic_share", "classifier.synthetic_share", False),
        ("recipe", ("curriculum", "pretrain")),
    ),
    ("lr", "classifier.lr", True, None),
)


def _parameters(config: SweepConfig) -> Iterator[Parameter]:
    """Yield the parameters that are searched, each after the choice that it depends on."""
    low, high = config.ratio
    yield Parameter(
        name="ratio", setting="synthesis.ratio", low=low, high=high, step=config.ratio_step
    )
    choices: dict[str, tuple[str, ...]] = {}
    for name, setting, of_sweep, with_images in _CHOICES:
        if found := getattr(config, of_sweep):
            choices[name] = found
            yield Parameter(name=name, setting=setting, choices=found, with_images=with_images)
    for name, setting, log, reader in _RANGES:
        bounds = getattr(config, name)
        if reader is not None:
            values = tuple(v for v in reader[1] if v in choices.get(reader[0], ()))
            reader = (reader[0], values)
        if bounds is not None and (reader is None or reader[1]):
            yield Parameter(
                name=name,
                setting=setting,
                low=bounds[0],
                high=bounds[1],
                log=log,
                reader=reader,
                with_images=name != "lr",
            )
