"""Planted objectives, whose best points are known, and the contract of a sampler."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.storages import BaseStorage, InMemoryStorage

from gemix.sweep.config import SweepConfig
from gemix.sweep.database import Retrying
from gemix.sweep.objective import Scores
from gemix.sweep.records import TrialRecord, pareto_front, ranking
from gemix.sweep.space import SearchSpace
from gemix.sweep.study import SweepStudy

TRIALS = 30
_CORE = {"methods": ("softmax",), "dirichlet_dominant": None}  # T, b and N


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planted:
    """An objective that costs nothing, with a known answer.

    Attributes:
        settings: of the sweep.
        truth: the scores of a trial's parameters, without noise.
        best: macro-F2 of the best feasible point.
        noise: standard deviation of what is measured of macro-F2; that of the rates is a quarter,
            since they are compared with the reference's on the same images.
    """

    settings: Mapping[str, Any]
    truth: Callable[[Mapping[str, Any]], Scores]
    best: float
    noise: float

    def config(self, **settings: Any) -> SweepConfig:
        """Return the settings of the sweep with some changed."""
        return SweepConfig(**{"trials": TRIALS, "seeds": 1} | dict(self.settings) | settings)

    def measure(self, params: Mapping[str, Any], rng: np.random.Generator) -> Scores:
        """Return the scores of a trial with noise."""
        true, (f2, fnr) = self.truth(params), rng.standard_normal(2)
        return dataclasses.replace(
            true, macro_f2=true.macro_f2 + self.noise * f2, fnr=true.fnr + self.noise / 4 * fnr
        )

    def grid(self, points: int = 41) -> list[Scores]:
        """Return the true scores of a grid over T, b and N."""
        (t0, t1), (b0, b1) = self.config().temperature, self.config().bias
        temperatures = np.exp(np.linspace(math.log(t0), math.log(t1), points))
        return [
            self.truth({"ratio": n / 4, "method": "softmax", "temperature": t, "bias": b})
            for n in range(9)
            for t in temperatures
            for b in np.linspace(b0, b1, points)
        ]


def _bump(value: float, at: float, width: float) -> float:
    return math.exp(-0.5 * ((value - at) / width) ** 2)


def _harmful(params: Mapping[str, Any]) -> Scores:
    """Synthetic images that help where T and b are right, and harm where they are too many.

    The best point has T = 0.5, b = 3 and a ratio of 0.75: macro-F2 0.86 against 0.80 of real images
    alone. Labels that are too sharp miss more of the sick.
    """
    ratio = params["ratio"]
    if ratio == 0:
        return Scores(macro_f2=0.80, fnr=0.20)
    log_t, bias = math.log(params["temperature"]), params["bias"]
    fit = _bump(log_t, math.log(0.5), 1.0) * _bump(bias, 3.0, 1.5)
    gain = 0.06 * fit * (ratio / 0.75) * math.exp(1 - ratio / 0.75)
    sharp = max(0.0, 0.5 * bias - log_t - 2.5)
    return Scores(
        macro_f2=0.80 + gain - 0.03 * (1 - fit) * ratio,
        fnr=0.20 - 0.03 * fit * min(ratio, 1.0) + 0.03 * sharp * ratio,
    )


def _opposed(params: Mapping[str, Any]) -> Scores:
    """Macro-F2 and FNR that want different b: the front is T = 1, ratio 1 and b from 2 to 4.

    Low temperatures miss disease, which is a constraint.
    """
    ratio = params["ratio"]
    if ratio == 0:
        return Scores(macro_f2=0.80, fnr=0.20, missed_disease_rate=0.05)
    log_t, bias = math.log(params["temperature"]), params["bias"]
    scale = _bump(log_t, 0.0, 1.0) * (1 - (ratio - 1) ** 2)
    return Scores(
        macro_f2=0.80 + 0.06 * scale * (2 * _bump(bias, 2.0, 1.5) - 1),
        fnr=0.20 - 0.06 * scale * (2 * _bump(bias, 4.0, 1.5) - 1),
        missed_disease_rate=0.05 + 0.05 * max(0.0, -log_t - 0.3) * ratio,
    )


def _relabelled(params: Mapping[str, Any]) -> Scores:
    """Images that show less than was asked for: a mixture of both labels is the best.

    The best point has softmax with T = 0.5, labels that are a mixture with the weight 0.6, and a
    ratio of 1: macro-F2 0.86 against 0.80 of real images alone. Hard labels gain a third of that,
    labels of one source a half or less. Labels as asked for miss more of the sick, the more images
    have them.
    """
    ratio = params["ratio"]
    if ratio == 0:
        return Scores(macro_f2=0.80, fnr=0.20)
    fit = 0.5
    if params["method"] == "softmax":
        fit = max(0.0, 1 - 0.5 * (math.log(params["temperature"] / 0.5) / 1.5) ** 2)
    seen = {"asked": 0.0, "teacher": 1.0}.get(params["label_source"], params.get("mixture"))
    fit *= 0.4 + 0.6 * _bump(seen, 0.6, 0.3)
    return Scores(
        macro_f2=0.80 + 0.06 * fit * ratio * math.exp(1 - ratio) - 0.02 * (1 - fit) * ratio,
        fnr=0.20 - 0.02 * fit + 0.03 * max(0.0, 0.5 - seen) * ratio,
    )


HARMFUL = Planted(settings=_CORE, truth=_harmful, best=0.86, noise=0.01)
"""A known optimum under a constraint, with noise."""

RELABELLED = Planted(
    settings={
        "methods": ("softmax", "onehot"),
        "bias": None,
        "label_sources": ("asked", "teacher", "mixture"),
    },
    truth=_relabelled,
    best=0.86,
    noise=0.01,
)
"""The same over choices, and ranges that are read under one value of a choice alone."""

OPPOSED = Planted(settings=_CORE | {"objective": "pareto"}, truth=_opposed, best=0.86, noise=0.005)
"""A known Pareto front under a constraint, with noise."""


def search(
    planted: Planted, seed: int, storage: BaseStorage | None = None, **settings: Any
) -> list[TrialRecord]:
    """Run a study of a planted objective, one trial after another.

    Args:
        seed: of the sampler and of the noise.
    """
    config = planted.config(seed=seed, **settings)
    space = SearchSpace(config, lr=1e-3, model="resnet10t")
    study = SweepStudy(storage or InMemoryStorage(), config, space, {}, Retrying("memory"))
    while (proposal := study.propose()) is not None:
        rng = np.random.default_rng([seed, sum(r.counts for r in study.records())])
        study.complete(proposal.number, [planted.measure(proposal.params, rng)])
    return study.records()


def regret(planted: Planted, records: Sequence[TrialRecord], first: int = 1) -> float:
    """Return by how much the best of the `first` of a ranking truly misses the feasible optimum."""
    chosen = [planted.truth(record.params).macro_f2 for record in ranking(records)[:first]]
    return planted.best - max(chosen)


def excess(planted: Planted, records: Sequence[TrialRecord]) -> float:
    """Return by how much the chosen trials truly exceed a constraint; 0 or less is feasible."""
    is_front = planted.config().objective == "pareto"
    chosen = pareto_front(records) if is_front else ranking(records)[:1]
    reference, margin = planted.truth({"ratio": 0.0}), planted.config().fnr_margin
    return max(_excess(planted.truth(record.params), reference) for record in chosen) - margin


def front_share(planted: Planted, records: Sequence[TrialRecord]) -> float:
    """Return the hypervolume of a found front as a share of the true one's, both without noise.

    It is measured from the reference's macro-F2 - 0.05 and FNR + 0.05.
    """
    reference, margin = planted.truth({"ratio": 0.0}), planted.config().fnr_margin
    corner = (reference.macro_f2 - 0.05, reference.fnr + 0.05)
    feasible = [s for s in planted.grid() if _excess(s, reference) <= margin]
    found = [planted.truth(record.params) for record in pareto_front(records)]
    return _hypervolume(found, corner) / _hypervolume(feasible, corner)


def _excess(scores: Scores, reference: Scores) -> float:
    if scores.missed_disease_rate is None:
        return scores.fnr - reference.fnr
    return scores.missed_disease_rate - reference.missed_disease_rate


def _hypervolume(scores: Sequence[Scores], corner: tuple[float, float]) -> float:
    """Return the area that points dominate, down to a corner of low macro-F2 and high FNR."""
    area, fnr = 0.0, corner[1]
    for one in sorted(scores, key=lambda s: -s.macro_f2):
        if one.fnr < fnr and one.macro_f2 > corner[0]:
            area += (one.macro_f2 - corner[0]) * (fnr - one.fnr)
            fnr = one.fnr
    return area


class SamplerContract:
    """What every sampler of ``sweep.sampler`` keeps; subclass it in a test, with its name.

    Attributes:
        runs: searches that are averaged; fewer for a sampler that is slow and far from chance.
        trials: of a search, likewise.
    """

    sampler: str
    runs: int = 12
    trials: int = 20

    def test_same_seed_and_results_give_the_same_trials(self):
        """Another seed gives others, but for the first points."""
        runs = [search(HARMFUL, 3, sampler=self.sampler, trials=10) for _ in range(2)]
        params = [[record.params for record in run] for run in runs]
        assert params[0] == params[1]
        other = search(HARMFUL, 4, sampler=self.sampler, trials=10)
        assert [record.params for record in other][2:] != params[0][2:]

    def test_it_does_better_than_chance(self):
        """The best of twenty random points is 0.025 below the optimum on average."""
        runs = [
            search(HARMFUL, seed, sampler=self.sampler, trials=self.trials)
            for seed in range(self.runs)
        ]
        assert np.mean([regret(HARMFUL, run) for run in runs]) < 0.02

    def test_the_chosen_trial_is_feasible(self):
        """In truth, within the noise of what is measured."""
        records = search(HARMFUL, 0, sampler=self.sampler, trials=15)
        assert excess(HARMFUL, records) <= HARMFUL.noise

    def test_a_front_is_found_under_a_constraint(self):
        """More of its hypervolume than by chance (0.69), and nothing that breaks the constraint."""
        records = search(OPPOSED, 0, sampler=self.sampler, trials=self.trials)
        assert front_share(OPPOSED, records) > 0.75
        assert excess(OPPOSED, records) <= 0
