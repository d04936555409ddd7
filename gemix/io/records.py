"""Dataclasses as JSON files: plain values out of them, and checked values into them."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union

from gemix.core.errors import DataError
from gemix.io.storage import Store

T = TypeVar("T")


def renamed(*earlier: str) -> Any:
    """Return a field that earlier versions called otherwise."""
    return dataclasses.field(metadata={"earlier": earlier})


def others(*required: str) -> Any:
    """Return a field for all numbers (or nulls) in the mapping that are no fields of their own.

    Args:
        required: names that must be among them.
    """
    return dataclasses.field(metadata={"others": required})


def write_record(store: Store, name: str, record: Any) -> None:
    """Write a record, a sequence of records or a mapping as JSON."""
    store.write_json(name, to_json(record))


def to_json(value: Any) -> Any:
    """Return plain values; optional fields that are None are left out."""
    if dataclasses.is_dataclass(value):
        tree: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            found = getattr(value, field.name)
            if "others" in field.metadata:
                tree |= to_json(found)
            elif found is not None or field.default is dataclasses.MISSING:
                tree[field.name] = to_json(found)
        return tree
    if isinstance(value, Mapping):
        return {name: to_json(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(one) for one in value]
    return value


class _WrongValue(Exception):
    """A value at a path in a file, in words."""


def read_record(store: Store, name: str, kind: type[T], remedy: str) -> T:
    """Read a JSON file as a record, or as tuples and mappings of records.

    Args:
        kind: the record's class, or ``tuple[Record, ...]``, ``dict[str, float]`` and the like.
        remedy: what helps if the file is missing or damaged, for the message.

    Raises:
        DataError: naming the file and the field.
    """
    try:
        value = store.read_json(name)
    except DataError as error:
        raise DataError(f"{error}; {remedy}") from None
    try:
        return _parse(kind, value, "")
    except _WrongValue as error:
        raise file_error(store, name, str(error), remedy) from None


def file_error(store: Store, name: str, what: str, remedy: str) -> DataError:
    """Return an error that names the file, what is wrong with it and what helps."""
    return DataError(f"{store.url}/{name}: {what}; {remedy}")


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and math.isfinite(value)


def _parse(kind: Any, value: Any, path: str) -> Any:
    """Return `value` as `kind`: a scalar, a record, or tuples, mappings and options of those."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else _parse(arguments[0], value, path)
    if dataclasses.is_dataclass(kind):
        return _parse_record(kind, value, path)
    if origin is tuple:
        pair = len(arguments) == 2 and arguments[1] is not ...
        if not isinstance(value, list) or (pair and len(value) != 2):
            raise _type_error(path, value, "a list of two" if pair else "a list")
        return tuple(
            _parse(arguments[0], one, f"{path}[{index}]") for index, one in enumerate(value)
        )
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _type_error(path, value, "a mapping")
        return {
            name: _parse(arguments[1], one, f"{path}.{name}".lstrip("."))
            for name, one in value.items()
        }
    if kind is float and is_number(value):
        return value
    if kind in (int, bool, str) and type(value) is kind:
        return value
    raise _type_error(path, value, {int: "a whole number", float: "a number", str: "text"}[kind])


def _parse_record(kind: type[T], value: Any, path: str) -> T:
    if not isinstance(value, dict):
        raise _type_error(path, value, "a mapping")
    hints, found, taken = _hints(kind), {}, set()
    at = f"{path}." if path else ""
    for field in dataclasses.fields(kind):
        if "others" in field.metadata:
            continue
        names = (field.name, *field.metadata.get("earlier", ()))
        taken.update(names)
        name = next((one for one in names if one in value), None)
        if name is not None:
            found[field.name] = _parse(hints[field.name], value[name], f"{at}{name}")
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise _WrongValue(f"{at}{field.name} is missing")
    for field in dataclasses.fields(kind):
        if "others" in field.metadata:
            required = field.metadata["others"]
            for name in required:
                if name not in value:
                    raise _WrongValue(f"{at}{name} is missing")
                _parse(float | None, value[name], f"{at}{name}")
            found[field.name] = {
                name: one
                for name, one in value.items()
                if name not in taken and (one is None or is_number(one))
            }
    return kind(**found)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _type_error(path: str, value: Any, wanted: str) -> _WrongValue:
    shown = repr(value)
    shown = shown if len(shown) <= 40 else f"{shown[:39]}…"
    return _WrongValue(f"{path or 'the content'} is {shown} and not {wanted}")
