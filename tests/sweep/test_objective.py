"""Values, constraints and the early end of a trial."""

from __future__ import annotations

import pytest

from gemix.core.errors import DataError
from gemix.sweep.config import SweepConfig
from gemix.sweep.objective import Objective, Scores

REFERENCE = Scores(macro_f2=0.8, fnr=0.2, missed_disease_rate=0.05)


def objective(**settings) -> Objective:
    return Objective.of(SweepConfig(**settings))


def scores(*macro_f2: float) -> list[Scores]:
    return [Scores(macro_f2=value, fnr=0.2) for value in macro_f2]


def test_rates_are_averaged_over_the_seeds():
    other = Scores(macro_f2=0.6, fnr=0.4, missed_disease_rate=0.15)
    mean = Scores.mean([REFERENCE, other])
    assert (mean.macro_f2, mean.fnr) == pytest.approx((0.7, 0.3))
    assert mean.missed_disease_rate == pytest.approx(0.1)
    assert Scores.mean([REFERENCE, Scores(macro_f2=1, fnr=0)]).missed_disease_rate is None


@pytest.mark.parametrize(
    ("fnr", "missed", "feasible"),
    [
        (0.2, 0.05, True),
        (0.209, 0.059, True),
        (0.211, 0.05, False),
        (0.1, 0.061, False),
    ],
)
def test_both_rates_are_bounded_by_the_references(fnr, missed, feasible):
    one = Scores(macro_f2=0.9, fnr=fnr, missed_disease_rate=missed)
    found = objective(fnr_margin=0.01)
    constraints = found.constraints(one, REFERENCE)
    assert list(constraints) == ["fnr", "missed_disease_rate"]
    assert all(value <= 0 for value in constraints.values()) == feasible
    assert (found.values(one), found.directions) == ([0.9], ["maximize"])


def test_a_front_has_two_values_and_is_not_pruned():
    found = objective(objective="pareto")
    assert found.values(REFERENCE) == [0.8, 0.2]
    assert found.directions == ["maximize", "minimize"]
    assert list(found.constraints(REFERENCE, REFERENCE)) == ["missed_disease_rate"]
    assert not found.prunes and not found.is_hopeless(scores(0.1), scores(0.9))


def test_a_trial_is_compared_on_the_seeds_that_both_have():
    found, best = objective(hopeless_gap=0.05), scores(0.9, 0.5)
    assert found.is_hopeless(scores(0.84), best)
    assert not found.is_hopeless(scores(0.86), best)
    assert not found.is_hopeless(scores(0.84, 0.54), best)
    assert not found.is_hopeless([], best)
    assert not objective(hopeless_gap=None).is_hopeless(scores(0.1), best)


def test_scores_of_an_epoch():
    row = {"val_macro_f2": 0.8, "val_fnr": 0.2, "val_missed_disease_rate": 0.05, "val_loss": 1.0}
    assert Scores.of_row(row) == REFERENCE
    with pytest.raises(DataError, match="no macro-F2"):
        Scores.of_row({"val_loss": 1.0})
