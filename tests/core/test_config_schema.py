"""Configs: validated when built, all problems at once."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Annotated, Literal

import pytest

from gemix.core.config_schema import Config, ConfigIssue, InvalidConfig, Positive, PowerOfTwo, Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner(Config):
    count: Positive = 3
    name: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer(Config):
    mode: Literal["fast", "exact"] = "fast"
    rate: Annotated[float, Range(low=0, high=1)] = 0.5
    size: Annotated[int, PowerOfTwo(16, 1024)] = 64
    weights: tuple[Annotated[float, Range(low=0)], ...] = ()
    inner: Inner = Inner()

    def validate(self) -> list[ConfigIssue]:
        if self.mode == "exact" and self.rate > 0.9:
            return [ConfigIssue("rate", self.rate, "at most 0.9 where mode is exact")]
        return []


def problems(**values) -> dict[str, ConfigIssue]:
    with pytest.raises(InvalidConfig) as caught:
        Outer.from_mapping(values)
    return {problem.path: problem for problem in caught.value.problems}


def test_defaults_round_trip():
    config = Outer(weights=(1.0, 2.0), inner=Inner(name="x"))
    plain = config.to_mapping()
    assert plain["weights"] == [1.0, 2.0] and plain["inner"] == {"count": 3, "name": "x"}
    assert Outer.from_mapping(plain) == config


def test_every_problem_is_reported_with_its_path():
    found = problems(
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
        ("inner", [1]),
    ],
)
def test_wrong_types_are_refused(field, value):
    assert field in problems(**{field: value})


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
    assert arrived.problems == caught.value.problems


def test_numbers_are_read_as_yaml_writes_them():
    assert Outer.from_mapping({"rate": "1e-3"}).rate == 0.001
    assert isinstance(Outer.from_mapping({"rate": 1}).rate, float)


def test_conflicts_between_valid_fields():
    assert problems(mode="exact", rate=0.95)["rate"].allowed == "at most 0.9 where mode is exact"
