"""Typed, keyword-only configuration that is validated when it is built.

A component's settings are a frozen dataclass that derives from :class:`Config`; types and
ranges stand in the annotations. Built from Python or from a mapping (a YAML file, overrides),
a config reports *all* its problems at once. Standard library only, so that ``gemix.gan`` runs
where nothing but torch and NumPy is installed.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union

from gemix.core.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Range:
    """A closed interval; either end may be open-ended (None)."""

    low: float | None = None
    high: float | None = None

    def accepts(self, value: float) -> bool:
        """Whether `value` lies in the interval (NaN never does)."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return low <= value <= high

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"from {self.low} to {self.high}"
        return f"at least {self.low}" if self.high is None else f"at most {self.high}"


@dataclasses.dataclass(frozen=True)
class PowerOfTwo:
    """A power of two in a closed interval."""

    low: int
    high: int

    def accepts(self, value: int) -> bool:
        """Whether `value` is a power of two in the interval."""
        return self.low <= value <= self.high and value & (value - 1) == 0

    def __str__(self) -> str:
        return f"a power of two from {self.low} to {self.high}"


Positive = Annotated[int, Range(low=1)]
Count = Annotated[int, Range(low=0)]
Fraction = Annotated[float, Range(low=0, high=1)]
NonNegative = Annotated[float, Range(low=0)]


@dataclasses.dataclass(frozen=True)
class ConfigIssue:
    """One bad setting: where it stands, what was given, what is allowed."""

    path: str
    given: Any
    allowed: str
    nearest: str | None = None

    def __str__(self) -> str:
        text = f"{self.path}: given {self.given!r}, allowed: {self.allowed}"
        return text + (f" (did you mean {self.nearest!r}?)" if self.nearest else "")

    def prefixed(self, parent: str) -> ConfigIssue:
        """The same problem seen from the section `parent`."""
        return dataclasses.replace(self, path=f"{parent}.{self.path}")


class InvalidConfig(ConfigError):
    """A config that could not be built; `problems` holds every reason."""

    def __init__(self, problems: list[ConfigIssue]):
        self.problems = problems
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{len(problems)} bad setting(s):\n{lines}")

    def __reduce__(self):  # by default it would be made of its text where it arrives
        return type(self), (self.problems,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all configs. Subclasses are frozen, keyword-only dataclasses.

    Raises:
        InvalidConfig: at construction, with every bad field.
    """

    def __post_init__(self) -> None:
        problems = []
        for field in dataclasses.fields(self):
            value, found = _coerce(field_types(type(self))[field.name], getattr(self, field.name))
            problems += [_at(field.name, problem) for problem in found]
            object.__setattr__(self, field.name, value)
        problems = problems or self.validate()
        if problems:
            raise InvalidConfig(problems)

    def validate(self) -> list[ConfigIssue]:
        """Problems between fields that are each valid alone; subclasses override."""
        return []

    def to_mapping(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars, as YAML and JSON write them."""
        plain = lambda v: [plain(x) for x in v] if isinstance(v, tuple) else v  # noqa: E731
        return {
            field.name: value.to_mapping() if isinstance(value, Config) else plain(value)
            for field in dataclasses.fields(self)
            for value in [getattr(self, field.name)]
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> typing.Self:
        """Builds the config from nested plain values; fields left out take their defaults.

        Raises:
            InvalidConfig: with every unknown key and every bad value of the whole tree.
        """
        config, problems = _from_mapping(cls, mapping)
        if problems:
            raise InvalidConfig(problems)
        return config


@functools.cache
def field_types(cls: type[Config]) -> dict[str, Any]:
    """Resolved annotations of a config class, `Annotated` kept."""
    return typing.get_type_hints(cls, include_extras=True)


def unknown_key(key: str, given: Any, known: list[str]) -> ConfigIssue:
    """The problem of a key that is none of `known`."""
    nearest = difflib.get_close_matches(key, known, n=1)
    return ConfigIssue(key, given, "one of " + ", ".join(known), nearest[0] if nearest else None)


def _at(name: str, problem: ConfigIssue) -> ConfigIssue:
    return problem.prefixed(name) if problem.path else dataclasses.replace(problem, path=name)


def _from_mapping(cls: type[Config], mapping: Any) -> tuple[Any, list[ConfigIssue]]:
    if not isinstance(mapping, Mapping):
        return None, [ConfigIssue("", mapping, f"a section with keys ({cls.__name__})")]
    hints, values, problems = field_types(cls), {}, []
    for key, given in mapping.items():
        if key not in hints:
            problems.append(unknown_key(str(key), given, list(hints)))
            continue
        values[key], found = _coerce(hints[key], given)
        problems += [_at(key, problem) for problem in found]
    if problems:
        return None, problems
    try:
        return cls(**values), []
    except InvalidConfig as error:
        return None, error.problems


def _coerce(hint: Any, value: Any) -> tuple[Any, list[ConfigIssue]]:
    """The value as the annotation wants it, or the problems that it has."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    bad = [ConfigIssue("", value, describe(hint))]
    if origin is Annotated:
        coerced, found = _coerce(args[0], value)
        if not found and coerced is not None and not all(m.accepts(coerced) for m in args[1:]):
            found = bad
        return coerced, found
    if origin in (Union, types.UnionType):
        for option in args:
            coerced, found = _coerce(option, value)
            if not found:
                return coerced, []
        return value, bad
    if origin is Literal:
        if value in args and type(value) in map(type, args):
            return value, []
        nearest = difflib.get_close_matches(str(value), [str(a) for a in args], n=1)
        return value, [dataclasses.replace(bad[0], nearest=nearest[0] if nearest else None)]
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return value, bad
        pairs = [_coerce(args[0], item) for item in value]
        found = [_at(str(i), p) for i, (_, problems) in enumerate(pairs) for p in problems]
        return tuple(item for item, _ in pairs), found
    if isinstance(hint, type) and issubclass(hint, Config):
        return (value, []) if isinstance(value, hint) else _from_mapping(hint, value)
    return _coerce_scalar(hint, value, bad)


def _coerce_scalar(hint: Any, value: Any, bad: list[ConfigIssue]) -> tuple[Any, list[ConfigIssue]]:
    if hint is float and not isinstance(value, bool):
        try:  # YAML 1.1 reads 1e-3 as text, and 1 as an integer
            number = float(value)
        except (TypeError, ValueError):
            return value, bad
        return number, bad if math.isnan(number) else []
    if hint is int and isinstance(value, bool):
        return value, bad
    return value, [] if isinstance(value, hint) else bad


def describe(hint: Any) -> str:
    """What an annotation allows, in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        marks = " and ".join(str(mark) for mark in args[1:])
        return f"{describe(args[0])}, {marks}"
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (Union, types.UnionType):
        return " or ".join(describe(option) for option in args)
    if origin is tuple:
        return f"a list, each {describe(args[0])}"
    names = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    return names.get(hint, "null" if hint is type(None) else getattr(hint, "__name__", str(hint)))
