"""Typed, keyword-only configuration that is validated when it is built.

A component's settings are a frozen dataclass that derives from :class:`Config`. The annotation of
a field says everything about it: its type, its range, markers, and one line of documentation::

    batch: Annotated[int, Range(1, 65536), "Images in one step, over all workers."] = 32

Built from Python or from a mapping (a YAML file, overrides), a config reports *all* issues at
once. Standard library only, so that ``gemix.gan`` runs with torch, NumPy and safetensors alone.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union

from gemix.core.errors import ConfigError

LIMIT = 10**9
"""Bound of every number whose field names no other one; no number is infinite or NaN."""


@dataclasses.dataclass(frozen=True)
class Range:
    """A closed interval, by default all numbers up to :data:`LIMIT` in size."""

    low: float = -LIMIT
    high: float = LIMIT

    def accepts(self, value: float) -> bool:
        """Return whether `value` lies in the interval (NaN never does)."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"from {_short(self.low)} to {_short(self.high)}"


@dataclasses.dataclass(frozen=True)
class PowerOfTwo:
    """A power of two in a closed interval."""

    low: int
    high: int

    def accepts(self, value: int) -> bool:
        """Return whether `value` is a power of two in the interval."""
        return self.low <= value <= self.high and value & (value - 1) == 0

    def __str__(self) -> str:
        return f"a power of two from {self.low} to {self.high}"


class OnlyFor:
    """A setting that some methods do not read; they refuse it unless it has its default.

    Args:
        methods: values of the field `method` of the same config under which the setting is read.
    """

    def __init__(self, *methods: str):
        self.methods = methods


class Operational:
    """A setting that does not change the results of finished steps.

    It may differ between the attempts on one work directory. On a field that is itself a section
    it holds for the whole section.
    """


class Location:
    """A setting that names a file, directory or database; nothing that is handed on has it."""


Seed = Annotated[int, Range(low=0, high=2**32 - 1)]
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
        """Return the same issue as seen from the section `parent`."""
        return dataclasses.replace(self, path=f"{parent}.{self.path}")


class InvalidConfig(ConfigError):
    """A config that could not be built; `issues` holds every issue."""

    def __init__(self, issues: list[ConfigIssue]):
        self.issues = issues
        lines = "\n".join(f"  {issue}" for issue in issues)
        super().__init__(f"{len(issues)} bad setting(s):\n{lines}")

    def __reduce__(self):  # by default unpickling would pass the message for `issues`
        return type(self), (self.issues,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all configs. Subclasses are frozen, keyword-only dataclasses.

    Raises:
        InvalidConfig: at construction, with every bad field.
    """

    def __post_init__(self) -> None:
        issues = []
        for field in dataclasses.fields(self):
            value, found = _coerce(field_types(type(self))[field.name], getattr(self, field.name))
            issues += [_at(field.name, issue) for issue in found]
            object.__setattr__(self, field.name, value)
        issues = issues or [*_issues_of_other_methods(type(self), vars(self)), *self.validate()]
        if issues:
            raise InvalidConfig(issues)

    def validate(self) -> list[ConfigIssue]:
        """Return issues between fields that are each valid alone; subclasses override."""
        return []

    def to_mapping(self) -> dict[str, Any]:
        """Return plain dicts, lists and scalars, as YAML and JSON write them."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> typing.Self:
        """Build the config from nested plain values; fields left out take their defaults.

        Raises:
            InvalidConfig: with every unknown key and every bad value of the whole tree.
        """
        config, issues = _from_mapping(cls, mapping)
        if issues:
            raise InvalidConfig(issues)
        return config


@functools.cache
def field_types(cls: type[Config]) -> dict[str, Any]:
    """Return the resolved annotations of a config class, `Annotated` kept."""
    return typing.get_type_hints(cls, include_extras=True)


def default_values(cls: type[Config]) -> dict[str, Any]:
    """Return the default of every field that has one."""
    return {
        field.name: field.default
        for field in dataclasses.fields(cls)
        if field.default is not dataclasses.MISSING
    }


def settings_of_other_methods(cls: type[Config], method: Any) -> list[str]:
    """Return the names of the fields that only methods other than `method` read."""
    return [
        name
        for name, hint in field_types(cls).items()
        for mark in _metadata(hint)
        if isinstance(mark, OnlyFor) and method not in mark.methods
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldDoc:
    """Documentation of one setting."""

    name: str
    """Dotted path below the class that was asked for."""
    allowed: str
    """Type and range in words."""
    default: Any
    """As YAML writes it."""
    doc: str
    """One line of meaning with unit."""
    is_operational: bool
    methods: tuple[str, ...]
    """The methods that read it; empty for all."""


def field_docs(cls: type[Config]) -> list[FieldDoc]:
    """Return the documentation of every setting of a config class, nested sections included."""
    return [
        FieldDoc(
            name=path,
            allowed=describe(hint),
            default=_plain(default),
            doc=doc_of(hint),
            is_operational=_has(marks, Operational),
            methods=next((m.methods for m in _metadata(hint) if isinstance(m, OnlyFor)), ()),
        )
        for path, hint, default, marks in _leaves(cls)
    ]


def doc_of(hint: Any) -> str:
    """Return the line of documentation in an annotation, empty if there is none."""
    return next((mark for mark in _metadata(hint) if isinstance(mark, str)), "")


def marked_fields(cls: type[Config], mark: type) -> list[str]:
    """Return the dotted paths of all settings that are, or whose section is, of a mark's type."""
    return [path for path, _, _, marks in _leaves(cls) if _has(marks, mark)]


def changed_settings(old: Mapping[str, Any], new: Config) -> list[str]:
    """Return the dotted paths of settings that differ and may change results.

    Operational settings and those that the method of `new` does not read are left out.

    Args:
        old: a mapping as another version may have written it: what it lacks has the default of
            today, what `new` does not know is ignored.
    """
    changed, hints = [], field_types(type(new))
    other = settings_of_other_methods(type(new), getattr(new, "method", None))
    defaults = default_values(type(new))
    for name, hint in hints.items():
        if name in other or _has(_metadata(hint), Operational):
            continue
        value, given = getattr(new, name), old.get(name, defaults.get(name))
        if isinstance(value, Config):
            if isinstance(given, Config):
                given = given.to_mapping()
            inner = changed_settings(given if isinstance(given, Mapping) else {}, value)
            changed += [f"{name}.{path}" for path in inner]
        elif _coerce(hint, given)[0] != value:
            changed.append(name)
    return changed


def _leaves(cls: type[Config]) -> Iterator[tuple[str, Any, Any, tuple[Any, ...]]]:
    """Yield path, annotation, default and marks, its own and its sections', of every setting."""
    defaults = default_values(cls)
    for name, hint in field_types(cls).items():
        inner = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
        if isinstance(inner, type) and issubclass(inner, Config):
            for path, *rest, marks in _leaves(inner):
                yield f"{name}.{path}", *rest, (*marks, *_metadata(hint))
        else:
            yield name, hint, defaults.get(name), _metadata(hint)


def _metadata(hint: Any) -> tuple[Any, ...]:
    return hint.__metadata__ if typing.get_origin(hint) is Annotated else ()


def _has(marks: Iterable[Any], kind: type) -> bool:
    return any(isinstance(mark, kind) for mark in marks)


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_mapping()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _short(number: float) -> str:
    """Return a number as a person writes it: 65536, 0.001, 1e9."""
    if number >= 10**6 and number == float(f"{number:.0e}"):
        return f"{number:.0e}".replace("e+0", "e")
    return str(number) if isinstance(number, int) else f"{number:g}".replace("e-0", "e-")


def unknown_key(key: str, given: Any, known: list[str]) -> ConfigIssue:
    """Return the issue of a key that is none of `known`."""
    nearest = difflib.get_close_matches(key, known, n=1)
    return ConfigIssue(key, given, "one of " + ", ".join(known), nearest[0] if nearest else None)


def _at(name: str, issue: ConfigIssue) -> ConfigIssue:
    return issue.prefixed(name) if issue.path else dataclasses.replace(issue, path=name)


def _from_mapping(cls: type[Config], mapping: Any) -> tuple[Any, list[ConfigIssue]]:
    if not isinstance(mapping, Mapping):
        return None, [ConfigIssue("", mapping, f"a section with keys ({cls.__name__})")]
    hints, values, issues = field_types(cls), {}, []
    for key, given in mapping.items():
        if key not in hints:
            issues.append(unknown_key(str(key), given, list(hints)))
            continue
        values[key], found = _coerce(hints[key], given)
        issues += [_at(key, issue) for issue in found]
    if issues:
        bad = {issue.path.split(".")[0] for issue in issues}
        good = {key: value for key, value in values.items() if key not in bad}
        return None, issues + ([] if "method" in bad else _issues_of_other_methods(cls, good))
    try:
        return cls(**values), []
    except InvalidConfig as error:
        return None, error.issues


def _issues_of_other_methods(cls: type[Config], values: Mapping[str, Any]) -> list[ConfigIssue]:
    """Return the issues of settings that the method in `values` does not read."""
    defaults = default_values(cls)
    method = values.get("method", defaults.get("method"))
    return [
        ConfigIssue(name, values[name], f"{shown} (the default): method {method} ignores it")
        for name in settings_of_other_methods(cls, method)
        for shown in ["null" if defaults[name] is None else defaults[name]]
        if values.get(name, defaults[name]) != defaults[name]
    ]


def _coerce(hint: Any, value: Any) -> tuple[Any, list[ConfigIssue]]:
    """Return the value converted to the annotation's type, and the issues with it."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    bad = [ConfigIssue("", value, describe(hint))]
    if origin is Annotated and args[0] not in (int, float):
        return _coerce(_bounded(hint), value)
    if origin is Annotated or hint in (int, float):
        coerced, found = _coerce_scalar(args[0] if args else hint, value, bad)
        if not found and not all(mark.accepts(coerced) for mark in _constraints(hint)):
            found = bad
        return coerced, found
    if origin in (Union, types.UnionType):
        nearest = None
        for option in args:
            coerced, found = _coerce(option, value)
            if not found:
                return coerced, []
            nearest = nearest or found[0].nearest
        return value, [dataclasses.replace(bad[0], nearest=nearest)]
    if origin is Literal:
        if value in args and type(value) in map(type, args):
            return value, []
        nearest = difflib.get_close_matches(str(value), [str(a) for a in args], n=1)
        return value, [dataclasses.replace(bad[0], nearest=nearest[0] if nearest else None)]
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return value, bad
        pairs = [_coerce(args[0], item) for item in value]
        found = [_at(str(i), p) for i, (_, issues) in enumerate(pairs) for p in issues]
        return tuple(item for item, _ in pairs), found
    if isinstance(hint, type) and issubclass(hint, Config):
        return (value, []) if isinstance(value, hint) else _from_mapping(hint, value)
    return _coerce_scalar(hint, value, bad)


def _coerce_scalar(hint: Any, value: Any, bad: list[ConfigIssue]) -> tuple[Any, list[ConfigIssue]]:
    if hint is float and not isinstance(value, bool):
        try:  # YAML 1.1 reads 1e-3 as text, and 1 as an integer
            return float(value), []
        except (TypeError, ValueError, OverflowError):
            return value, bad
    if hint is int and isinstance(value, bool):
        return value, bad
    return value, [] if isinstance(value, hint) else bad


def _constraints(hint: Any) -> list[Range | PowerOfTwo]:
    """Return the bounds of a number's annotation; every number has some."""
    return [m for m in _metadata(hint) if isinstance(m, Range | PowerOfTwo)] or [Range()]


def _bounded(hint: Any) -> Any:
    """Return the type of an annotation; bounds beside ``int | None`` are those of its number."""
    kind, *marks = typing.get_args(hint)
    bounds = tuple(mark for mark in marks if isinstance(mark, Range | PowerOfTwo))
    if not bounds:
        return kind
    options = [Annotated[o, *bounds] if o in (int, float) else o for o in typing.get_args(kind)]
    return Union[tuple(options)]  # noqa: UP007 - made of a list


def describe(hint: Any) -> str:
    """Return what an annotation allows, in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    kind = args[0] if origin is Annotated else hint
    if kind in (int, float):
        words = "an integer" if kind is int else "a number"
        return f"{words}, {' and '.join(map(str, _constraints(hint)))}"
    if origin is Annotated:
        return describe(_bounded(hint))
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (Union, types.UnionType):
        return " or ".join(describe(option) for option in args)
    if origin is tuple:
        return f"a list, each {describe(args[0])}"
    names = {str: "text", bool: "true or false", type(None): "null"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))
