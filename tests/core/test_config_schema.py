"""Configs: validated when built, all issues at once."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Annotated, Literal

import pytest

from gemix.core.config_schema import (
    Config,
    ConfigIssue,
    Fraction,
    InvalidConfig,
    OnlyFor,
    Operational,
    PowerOfTwo,
    Range,
    changed_settings,
    field_docs,
    marked_fields,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner(Config):
    count: Annotated[int, Range(low=1), "Number of things."] = 3
    name: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer(Config):
    mode: Literal["fast", "exact"] = "fast"
    rate: Annotated[float, Range(low=0, high=1)] = 0.5
    size: Annotated[int, PowerOfTwo(16, 1024)] = 64
    weights: tuple[Annotated[float, Range(low=0)], ...] = ()
    offset: float = 0.0
    limit: Annotated[int | None, Range(2, 65536), Operational(), "Most things, or null."] = None
    inner: Inner = Inner()

    def validate(self) -> list[ConfigIssue]:
        if self.mode == "exact" and self.rate > 0.9:
            return [ConfigIssue("rate", self.rate, "at most 0.9 where mode is exact")]
        return []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Methods(Config):
    method: Literal["a", "b", "c"] = "a"
    of_a: Annotated[Fraction, OnlyFor("a"), "Read by a."] = 0.5
    of_a_too: Annotated[int | None, OnlyFor("a"), "Read by a."] = None
    of_both: Annotated[int, OnlyFor("b", "c"), "Read by b and c."] = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tree(Config):
    outer: Outer = Outer()
    inner: Annotated[Inner, Operational(), "An operational section."] = Inner()


def issues_of(**values) -> dict[str, ConfigIssue]:
    with pytest.raises(InvalidConfig) as caught:
        Outer.from_mapping(values)
    return {issue.path: issue for issue in caught.value.issues}


def test_defaults_round_trip():
    config = Outer(weights=(1.0, 2.0), inner=Inner(name="x"))
    plain = config.to_mapping()
    assert plain["weights"] == [1.0, 2.0] and plain["inner"] == {"count": 3, "name": "x"}
    assert Outer.from_mapping(plain) == config


def test_every_issue_is_reported_with_its_path():
    found = issues_of(
        mode="exat", rate=1.5, size=100, weights=[1, -1], inner={"count": 0, "nam": 1}, colour=1
    )
    assert set(found) == {"mode", "rate", "size", "weights.1", "inner.count", "inner.nam", "colour"}
    assert found["mode"].nearest == "exact"
    assert found["inner.nam"].nearest == "name"
    assert (found["rate"].given, found["rate"].allowed) == (1.5, "a number, from 0 to 1")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rate", float("nan")),
        ("rate", "much"),
        ("rate", True),
        ("rate", None),
        ("size", 64.0),
        ("size", True),
        ("weights", 3),
        ("rate", 10**400),
        ("offset", float("inf")),
        ("offset", -2e9),
        ("offset", "nan"),
        ("limit", 1),
        ("limit", 65537),
        ("limit", 2.0),
        ("inner", [1]),
    ],
)
def test_wrong_types_are_refused(field, value):
    assert field in issues_of(**{field: value})


def test_python_callers_get_the_same_errors():
    with pytest.raises(InvalidConfig, match=r"rate: given 2"):
        Outer(rate=2)
    with pytest.raises(TypeError):
        Outer("fast")


def test_errors_arrive_from_other_processes_as_they_were():
    with pytest.raises(InvalidConfig) as caught:
        Outer(rate=2, mode="none")
    arrived = pickle.loads(pickle.dumps(caught.value))
    assert str(arrived) == str(caught.value)
    assert arrived.issues == caught.value.issues


def test_numbers_are_read_as_yaml_writes_them():
    assert Outer.from_mapping({"rate": "1e-3"}).rate == 0.001
    assert isinstance(Outer.from_mapping({"rate": 1}).rate, float)


def test_conflicts_between_valid_fields():
    assert issues_of(mode="exact", rate=0.95)["rate"].allowed == "at most 0.9 where mode is exact"


def test_each_number_of_a_list_is_bounded():
    assert set(issues_of(weights=[1, float("inf"), 1e308])) == {"weights.1", "weights.2"}


def test_bounds_of_a_setting_that_may_be_null():
    assert Outer(limit=2).limit == 2
    assert issues_of(limit=1)["limit"].allowed == "an integer, from 2 to 65536 or null"


def test_settings_of_other_methods_are_refused_all_at_once():
    with pytest.raises(InvalidConfig) as caught:
        Methods(method="b", of_a=0.7, of_a_too=3, of_both=2)
    assert [issue.path for issue in caught.value.issues] == ["of_a", "of_a_too"]
    assert "allowed: 0.5 (the default): method b ignores it" in str(caught.value)
    assert "given 3, allowed: null (the default): method b" in str(caught.value)
    assert Methods(method="c", of_a=0.5, of_both=2).of_both == 2
    with pytest.raises(InvalidConfig) as caught:
        Methods.from_mapping({"method": "b", "of_a": 7, "of_a_too": 3, "off": 1})
    assert [issue.path for issue in caught.value.issues] == ["of_a", "off", "of_a_too"]
    with pytest.raises(InvalidConfig, match=r"^1 bad setting.*\n  method: given 'bb'"):
        Methods.from_mapping({"method": "bb", "of_a": 0.7})
    assert Methods(of_a=0.7, of_a_too=3).of_a == 0.7


def test_documentation_of_the_fields():
    docs = {entry.name: entry for entry in field_docs(Outer)}
    assert list(docs) == [
        *("mode", "rate", "size", "weights", "offset", "limit", "inner.count", "inner.name")
    ]
    count, limit = docs["inner.count"], docs["limit"]
    assert (count.doc, count.default, count.is_operational) == ("Number of things.", 3, False)
    assert count.allowed == "an integer, from 1 to 1e9"
    assert (limit.doc, limit.default, limit.is_operational) == ("Most things, or null.", None, True)
    assert docs["weights"].default == []
    assert [entry.methods for entry in field_docs(Methods)] == [(), ("a",), ("a",), ("b", "c")]
    assert docs["mode"].doc == "" and docs["mode"].allowed == "one of fast, exact"


def test_operational_settings():
    assert marked_fields(Tree, Operational) == ["outer.limit", "inner.count", "inner.name"]
    old = Tree(inner=Inner(count=9), outer=Outer(limit=5)).to_mapping()
    assert changed_settings(old, Tree()) == []
    assert changed_settings(old, Tree(outer=Outer(rate=0.1, inner=Inner(count=4)))) == [
        "outer.rate",
        "outer.inner.count",
    ]


@pytest.mark.parametrize(
    ("old", "changed"),
    [
        ({}, []),  # written before the settings were there
        ({"rate": "5e-1", "weights": (), "size": 64}, []),
        ({"offset": 0}, []),
        ({"of_a_later_version": 7, "inner": {"also": 1}}, []),
        ({"limit": 99}, []),
        ({"rate": 0.25}, ["rate"]),
        ({"offset": float("inf")}, ["offset"]),  # no longer allowed
        ({"inner": {"count": 4, "name": None}, "mode": "exact"}, ["mode", "inner.count"]),
        ({"inner": None}, []),
    ],
)
def test_changes_since_another_version(old, changed):
    assert changed_settings(old, Outer()) == changed


def test_changes_of_settings_that_the_method_does_not_read_do_not_count():
    old = {"method": "b", "of_a": 0.9, "of_both": 3}
    assert changed_settings(old, Methods(method="b")) == ["of_both"]
    assert changed_settings(old, Methods()) == ["method", "of_a"]
