"""The winner among candidates on fresh seeds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gemix.evaluation.classification.rates import score
from gemix.sweep.config import SweepConfig
from gemix.sweep.objective import Objective, Scores
from gemix.sweep.winner import Candidate, Retrained, choose_winner

PATIENTS, SEEDS = 120, 4
LABELS = np.arange(PATIENTS) % 3
GROUPS = [f"p{index}" for index in range(PATIENTS)]
OBJECTIVE = Objective.of(SweepConfig())


def retrained(name, wrong, *, of=(1, 2), as_class=2, noise=0):
    """Trainings with so many errors among images of some classes, none, or almost none, else."""
    rows = []
    for seed in range(SEEDS):
        rng, row = np.random.default_rng([noise, seed]), LABELS.copy()
        chosen = rng.choice(np.flatnonzero(np.isin(LABELS, of)), wrong, replace=False)
        row[chosen] = np.where(LABELS[chosen] == as_class, 1, as_class)
        rows.append(row)
    found = [score(LABELS, row, 3, normal=0) for row in rows]
    scores = tuple(Scores.of_row({f"val_{k}": v for k, v in one.items()}) for one in found)
    candidate = Candidate(name=name, trial=0, params={}, searched=scores[0])
    return Retrained(candidate=candidate, predicted=np.stack(rows), scores=scores)


def choose(*candidates, objective=OBJECTIVE):
    return choose_winner(candidates, LABELS, GROUPS, classes=3, normal=0, objective=objective)


def test_the_better_one_wins():
    real, better = retrained("real only", 24), retrained("trial 7", 6, noise=1)
    winner, gains = choose(real, better)
    assert winner is better and gains["trial 7"].reason is None
    assert gains["trial 7"].delta == pytest.approx(better.fresh.macro_f2 - real.fresh.macro_f2)
    assert gains["trial 7"].delta > 3 * gains["trial 7"].error


def test_what_is_simpler_wins_ties():
    real, default = retrained("real only", 20), retrained("published default", 20, noise=1)
    trial = retrained("trial 7", 19, noise=2)
    winner, gains = choose(real, default, trial)
    assert winner is real
    assert "no better than real only by more than one standard error" in gains["trial 7"].reason
    better = retrained("published default", 8, noise=3)
    winner, gains = choose(real, better, retrained("trial 7", 8, noise=4))
    assert winner is better and gains["trial 7"].over == "published default"


def test_one_that_misses_more_of_the_sick_never_wins():
    """Better in macro-F2, since it finds all of the others, and worse in what it may not be."""
    real = retrained("real only", 30, of=(0, 1, 2), as_class=1)
    misses = retrained("trial 7", 8, of=(1, 2), as_class=0, noise=1)
    assert misses.fresh.macro_f2 > real.fresh.macro_f2
    assert misses.fresh.missed_disease_rate > real.fresh.missed_disease_rate + OBJECTIVE.margin
    for pareto in (False, True):
        objective = dataclasses.replace(OBJECTIVE, pareto=pareto)
        winner, gains = choose(real, misses, objective=objective)
        assert winner is real and "missed_disease_rate" in gains["trial 7"].reason


def test_a_pareto_sweep_bounds_the_false_negative_rate_too():
    """By macro-F2 alone it would win; there is no healthy class that it could miss them for."""
    real = retrained("real only", 12, of=(1,), as_class=2)
    other = retrained("trial 7", 12, of=(1,), as_class=2, noise=1)
    worse = tuple(dataclasses.replace(one, fnr=one.fnr + 0.05) for one in other.scores)
    better = dataclasses.replace(retrained("trial 7", 2, noise=1), scores=worse)
    objective = dataclasses.replace(OBJECTIVE, pareto=True)
    winner, gains = choose_winner(
        [real, better], LABELS, GROUPS, classes=3, normal=None, objective=objective
    )
    assert winner is real and "(fnr" in gains["trial 7"].reason


def test_few_patients_choose_nothing():
    real, better = retrained("real only", 24), retrained("trial 7", 0, noise=1)
    few = ["a" if label else "b" for label in LABELS]
    winner, gains = choose_winner(
        [real, better], LABELS, few, classes=3, normal=0, objective=OBJECTIVE
    )
    assert winner is real and "too few validation patients" in gains["trial 7"].reason
