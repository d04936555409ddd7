"""Optuna's samplers, as a function of a seed and of the results so far.

Optuna's own lose the state of their generators with the process, and begin with the same numbers
after a restart. Here each trial has a sampler of its own, seeded with its place in the study, so
that a study goes on as it would have without an interruption.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from gemix.core.rng import Stream, sample_rng
from gemix.sweep.space import SearchSpace

STARTUP_TRIALS = 6  # random ones, the first points included, before there is a model

_ATTEMPTS = 5  # to find a point that is new

INTERRUPTED = "interrupted"
"""Attribute of a trial whose process died; another one repeats it, and it counts nowhere."""

SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(
        seed=seed, multivariate=True, n_startup_trials=STARTUP_TRIALS, constant_liar=True
    ),
    "gp": lambda seed: GPSampler(
        seed=seed, n_startup_trials=STARTUP_TRIALS, warn_independent_sampling=False
    ),
}
"""Samplers by the names of ``sweep.sampler``, built for a seed: one line each."""


class ConditionalSampler(BaseSampler):
    """Sample a conditional space with a sampler of spaces without conditions.

    The sampler sees a copy of the study in which a parameter that a trial did not read has a fixed
    value. Optuna's own way, the intersection or the groups of the parameters of all trials, would
    leave nothing to model after the trial without synthetic images, which reads the ratio alone.

    Args:
        space: the search space.
        name: of a sampler in :data:`SAMPLERS`.
        seed: of the study.
    """

    def __init__(self, space: SearchSpace, name: str, seed: int):
        self._space, self._build, self._seed = space, SAMPLERS[name], seed
        self._distributions = {p.name: p.distribution for p in space.parameters}

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all parameters, whichever of them the trial will read."""
        del study, trial
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a value of each parameter."""
        del search_space
        if "fixed_params" in trial.system_attrs:
            return {}  # enqueued; a model of a second would be thrown away
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            copy = optuna.create_study(
                directions=study.directions, sampler=self._build(self._seed_of(trial, others))
            )
            for other in others:
                if other.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING):
                    copy.add_trial(self._filled(other))
            return self._new_point(copy, others)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a random value of a parameter that an enqueued trial lacks."""
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        sampler = RandomSampler(self._seed_of(trial, others))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _new_point(self, copy: optuna.Study, others: list[FrozenTrial]) -> dict[str, Any]:
        """Return a point that differs from all others, if a few attempts find one.

        A trial that reads what another one has read gives the same result.
        """
        seen = [other.params for other in others]
        for _ in range(_ATTEMPTS):
            params = copy.ask(self._distributions).params  # stays in the copy as running
            if self._space.active(params) not in seen:
                break
        return params

    def _seed_of(self, trial: FrozenTrial, others: list[FrozenTrial]) -> int:
        """Return the seed of a trial, a function of its place among the trials that count."""
        place = trial.number - sum(
            INTERRUPTED in other.user_attrs for other in others if other.number < trial.number
        )
        return int(sample_rng(self._seed, Stream.SWEEP, place).integers(2**32))

    def _filled(self, trial: FrozenTrial) -> FrozenTrial:
        """Return a copy of a trial with a value of every parameter."""
        finished = trial.state.is_finished()
        copy = optuna.trial.create_trial(
            state=trial.state,
            values=trial.values if finished else None,
            params=self._space.filled(trial.params),
            distributions=self._distributions,
            intermediate_values=trial.intermediate_values,
        )
        for key, value in trial.constraints.items():
            copy.set_constraint(key, value)
        return copy
