"""The samplers on planted objectives; tests/bench/sweep.py runs twenty seeds of each."""

from __future__ import annotations

import dataclasses

import optuna
import pytest

from gemix.sweep.objective import Scores
from gemix.sweep.samplers import SAMPLERS
from gemix.sweep.testing import HARMFUL, OPPOSED, SamplerContract, front_share, regret, search


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


def test_the_samplers_model_sees_every_trial(monkeypatch):
    """Also those that read the ratio alone, whose other parameters have fixed values."""
    seen = []

    class Spy(optuna.samplers.RandomSampler):
        def before_trial(self, study, trial):
            seen.append([t.params for t in study.get_trials()[:-1]])

    monkeypatch.setitem(SAMPLERS, "tpe", lambda seed: Spy(seed))
    records = search(HARMFUL, 0, sampler="tpe", trials=4)
    assert len(seen) == 2  # the first points need no model
    assert [set(params) for params in seen[-1]] == [{"ratio", "method", "temperature", "bias"}] * 3
    assert seen[-1][0]["temperature"] == 1.0 and seen[-1][0]["ratio"] == 0.0
    assert records[0].params == {"ratio": 0.0}
