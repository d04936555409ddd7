"""Optuna's samplers, as a function of a seed and of the results so far.

Optuna's own lose the state of their generators with the process, and begin with the same numbers
after a restart. Here each trial has a sampler of its own, seeded with its place in the study, so
that a study goes on as it would have without an interruption.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from gemix.core.rng import Stream, sample_rng
from gemix.sweep.space import Parameter, SearchSpace

STARTUP_TRIALS = 8  # with synthetic images, random but for the first, before there is a model

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

    The sampler sees a copy of the study in which a parameter that a trial did not read has the
    value of :meth:`.SearchSpace.filled`. Real images alone are left out where they are a single
    point: a model would expect something new of it under every value of the other parameters, and
    propose it again and again. Where all label sources are searched, it sees one number in their
    place, the weight of the teacher: 0 for labels as asked for, 1 for the teacher's. The first
    trials, before there is a model, take all values of a choice about equally often.

    Optuna's own way, the intersection or the groups of the parameters of all trials, would leave
    nothing to model after the trial without synthetic images, which reads the ratio alone.

    Args:
        space: the search space.
        name: of a sampler in :data:`SAMPLERS`.
        seed: of the study.
    """

    def __init__(self, space: SearchSpace, name: str, seed: int):
        self._space, self._build, self._seed = space, SAMPLERS[name], seed
        self._leaves_out_reference = space.reference_is_a_point and space.parameters[0].high > 0
        self._distributions = {p.name: self._searched(p).distribution for p in space.parameters}
        self._modelled = dict(self._distributions)
        if space.sources_are_weights:
            del self._modelled["label_source"]

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
            seed = self._seed_of(trial, others)
            copy = optuna.create_study(directions=study.directions, sampler=self._build(seed))
            for other in others:
                if self._is_modelled(other):
                    copy.add_trial(self._filled(other))
            return self._new_point(copy, others, seed)

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

    def _searched(self, parameter: Parameter) -> Parameter:
        """Return a parameter without the values that are not searched."""
        if parameter.name == "ratio" and self._leaves_out_reference:
            return dataclasses.replace(parameter, low=parameter.step)
        return parameter

    def _is_modelled(self, trial: FrozenTrial) -> bool:
        if self._leaves_out_reference and trial.params.get("ratio") == 0:
            return False
        return trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)

    def _new_point(
        self, copy: optuna.Study, others: list[FrozenTrial], seed: int
    ) -> dict[str, Any]:
        """Return a point that is near no other one, a random one if the model has none.

        A trial that reads what another one has read gives the same result; and a model of noisy
        values would measure the point that was lucky again and again.
        """
        seen = [other.params for other in others]
        for attempt in range(2 * _ATTEMPTS):
            if attempt == _ATTEMPTS:
                copy.sampler = RandomSampler(seed)
            if len(copy.get_trials(deepcopy=False)) < STARTUP_TRIALS:
                copy.enqueue_trial(self._rarest_choices(copy))
            params = copy.ask(self._modelled).params  # stays in the copy as running
            if self._modelled.keys() < self._distributions.keys():
                params = self._space.with_source(params)
            active = self._space.active(params)
            if not any(self._space.are_near(active, one) for one in seen):
                break
        return params

    def _rarest_choices(self, copy: optuna.Study) -> dict[str, Any]:
        """Return the value of each choice that the fewest trials have, the first one of several."""
        taken = [trial.params for trial in copy.get_trials(deepcopy=False)]
        return {
            name: min(kind.choices, key=[params.get(name) for params in taken].count)
            for name, kind in self._modelled.items()
            if isinstance(kind, CategoricalDistribution)
        }

    def _seed_of(self, trial: FrozenTrial, others: list[FrozenTrial]) -> int:
        """Return the seed of a trial, a function of its place among the trials that count."""
        place = trial.number - sum(
            INTERRUPTED in other.user_attrs for other in others if other.number < trial.number
        )
        return int(sample_rng(self._seed, Stream.SWEEP, place).integers(2**32))

    def _filled(self, trial: FrozenTrial) -> FrozenTrial:
        """Return a copy of a trial with a value of every parameter."""
        finished = trial.state.is_finished()
        filled = self._space.filled(trial.params)
        copy = optuna.trial.create_trial(
            state=trial.state,
            values=trial.values if finished else None,
            params={name: filled[name] for name in self._modelled},
            distributions=self._modelled,
            intermediate_values=trial.intermediate_values,
        )
        for key, value in trial.constraints.items():
            copy.set_constraint(key, value)
        return copy
