"""The samplers on planted objectives; tests/bench/sweep.py runs twenty seeds of each."""

from __future__ import annotations

import dataclasses
import itertools

import optuna
import pytest

from gemix.sweep.objective import Scores
from gemix.sweep.samplers import SAMPLERS, STARTUP_TRIALS
from gemix.sweep.space import SearchSpace
from gemix.sweep.testing import (
    HARMFUL,
    OPPOSED,
    RELABELLED,
    SamplerContract,
    front_share,
    regret,
    search,
)


class TestTPE(SamplerContract):
    sampler = "tpe"


@pytest.mark.slow
class TestGP(SamplerContract):
    sampler = "gp"
    runs = 2
    trials = 14


def test_every_sampler_has_its_contract():
    assert {suite.sampler for suite in SamplerContract.__subclasses__()} == set(SAMPLERS)


def test_the_planted_answers_are_what_they_say():
    best = max(HARMFUL.grid(), key=lambda scores: scores.macro_f2)
    at = HARMFUL.truth({"ratio": 0.75, "method": "softmax", "temperature": 0.5, "bias": 3.0})
    assert at.macro_f2 == pytest.approx(0.86) and best.macro_f2 == pytest.approx(0.86, abs=1e-3)
    assert HARMFUL.truth({"ratio": 2.0, "temperature": 10.0, "bias": 0.0}).macro_f2 < 0.75
    point = {"ratio": 1.0, "method": "softmax", "temperature": 0.5, "label_source": "mixture"}
    assert RELABELLED.truth(point | {"mixture": 0.6}).macro_f2 == pytest.approx(RELABELLED.best)
    for other in ({"mixture": 0.3}, {"label_source": "teacher"}, {"method": "onehot"}):
        worse = RELABELLED.truth(point | {"mixture": 0.6} | other)
        assert worse.macro_f2 < RELABELLED.best - RELABELLED.noise
    front = [OPPOSED.truth({"ratio": 1.0, "temperature": 1.0, "bias": b}) for b in (2.0, 4.0)]
    assert front[0].macro_f2 > front[1].macro_f2 and front[0].fnr > front[1].fnr


def test_real_images_alone_are_no_answer():
    records = search(HARMFUL, 0, sampler="tpe", trials=1)
    assert regret(HARMFUL, records) == pytest.approx(0.06, abs=1e-3)
    assert front_share(OPPOSED, search(OPPOSED, 0, sampler="tpe", trials=1)) < 0.3


def test_a_parameter_that_a_trial_does_not_read_is_not_in_the_study():
    flat = dataclasses.replace(HARMFUL, truth=lambda params: Scores(macro_f2=0.8, fnr=0.2))
    for record in search(flat, 1, methods=("softmax", "onehot"), sampler="tpe", trials=12):
        images = record.params["ratio"] > 0
        assert ("method" in record.params) == images
        assert ("bias" in record.params) == (images and record.params["method"] == "softmax")


def test_no_trial_repeats_another_one_while_there_are_others():
    flat = dataclasses.replace(HARMFUL, truth=lambda params: Scores(macro_f2=0.8, fnr=0.2))
    for sampler in SAMPLERS:
        records = search(flat, 0, methods=("onehot",), sampler=sampler, trials=8)
        ratios = [record.params["ratio"] for record in records]
        assert len(set(ratios)) >= 7, sampler  # of nine


def test_no_trial_is_near_another_one():
    """Nor is the trial without synthetic images repeated, whatever luck its scores had."""
    for sampler in SAMPLERS:
        records = search(RELABELLED, 10, sampler=sampler, trials=16)
        near = SearchSpace(RELABELLED.config(), lr=1e-3, model="resnet10t").are_near
        pairs = itertools.combinations([record.params for record in records], 2)
        assert not [pair for pair in pairs if near(*pair)], sampler


def test_all_values_of_a_choice_are_among_the_first_trials():
    methods = ("softmax", "dirichlet", "onehot", "dirichlet_pair")
    flat = dataclasses.replace(HARMFUL, truth=lambda params: Scores(macro_f2=0.8, fnr=0.2))
    for seed in range(3):
        records = search(flat, seed, methods=methods, sampler="tpe", trials=1 + STARTUP_TRIALS)
        chosen = [record.params["method"] for record in records[1:]]
        assert sorted(map(chosen.count, methods)) == [2, 2, 2, 2]


def test_a_weight_at_an_end_of_its_range_is_a_label_source():
    space = SearchSpace(RELABELLED.config(), lr=1e-3, model="resnet10t")
    point = {"ratio": 1.0, "method": "onehot", "temperature": 1.0}
    for weight, source in ((0.0, "asked"), (0.04, "asked"), (0.5, "mixture"), (0.98, "teacher")):
        assert space.with_source(point | {"mixture": weight})["label_source"] == source
    for source, weight in (("asked", 0.0), ("teacher", 1.0)):
        assert space.filled({"ratio": 1.0, "label_source": source})["mixture"] == weight
    for settings in ({"mixture": (0.2, 1.0)}, {"label_sources": ("asked", "mixture")}):
        other = SearchSpace(RELABELLED.config(**settings), lr=1e-3, model="resnet10t")
        assert space.sources_are_weights and not other.sources_are_weights
        found = search(RELABELLED, 0, sampler="tpe", trials=12, **settings)
        assert {"asked", "mixture"} <= {record.params.get("label_source") for record in found}


def test_the_samplers_model_sees_every_trial_with_images(monkeypatch):
    """Those without are a single point, which is known, unless they read something else."""
    seen = []

    class Spy(optuna.samplers.RandomSampler):
        def before_trial(self, study, trial):
            seen.append([t.params for t in study.get_trials()[:-1]])

    monkeypatch.setitem(SAMPLERS, "tpe", lambda seed: Spy(seed))
    records = search(HARMFUL, 0, sampler="tpe", trials=4)
    assert len(seen) == 2  # the first points need no model
    assert [params["ratio"] > 0 for params in seen[-1]] == [True, True]
    assert records[0].params == {"ratio": 0.0}
    seen.clear()
    search(HARMFUL, 0, sampler="tpe", trials=4, lr=(1e-4, 1e-2))
    names = {"ratio", "method", "temperature", "bias", "lr"}
    assert [set(params) for params in seen[-1]] == [names] * 3
    assert seen[-1][0]["temperature"] == 1.0 and seen[-1][0]["ratio"] == 0.0
