"""A study that survives the processes that write it: the database is the truth.

One process at a time drives a study (:mod:`gemix.io.lease`). A trial that its predecessor left
RUNNING is closed as interrupted and queued again with the same parameters; it counts once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from gemix.core.errors import ConfigError, GemixError
from gemix.io.sweep_record import PUBLISHED, REFERENCE
from gemix.sweep.config import SweepConfig
from gemix.sweep.database import Retrying
from gemix.sweep.importance import importances
from gemix.sweep.objective import Objective, Scores
from gemix.sweep.records import (
    CURVE,
    NAME,
    REASON,
    REPEATS,
    SEED_SCORES,
    TrialRecord,
    best_record,
    scores_to_json,
)
from gemix.sweep.samplers import INTERRUPTED, ConditionalSampler
from gemix.sweep.space import SearchSpace

log = logging.getLogger("gemix.sweep")

IDENTITY = "gemix.sweep"  # attribute of the study: what makes its trials comparable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proposal:
    """A trial to run.

    Attributes:
        number: in the study.
        name: of one of the first points, else None.
        params: of the parameters that it reads.
    """

    number: int
    name: str | None
    params: Mapping[str, Any]


class SweepStudy:
    """An Optuna study of a sweep.

    Args:
        storage: an open database (:func:`gemix.sweep.database.connect`).
        config: its name, its sampler and how many trials there are to be.
        space: what is searched.
        identity: what else makes trials comparable, nested plain values: settings, digests.
        retrying: how calls of the database are repeated.

    Raises:
        ConfigError: if a study of that name has another search space or identity.
        StoreError: here and in every method, if the database stays away.
    """

    def __init__(
        self,
        storage: BaseStorage,
        config: SweepConfig,
        space: SearchSpace,
        identity: Mapping[str, Any],
        retrying: Retrying,
    ):
        self.config, self.space = config, space
        self.objective = Objective.of(config)
        self._storage, self._do = storage, retrying
        self._running: dict[int, optuna.Trial] = {}
        self._reports: dict[int, dict[int, Scores]] = {}
        self._waiting: dict[int, Sequence[Scores]] = {}  # complete, but for the reference
        self._failed_in_a_row: list[str] = []
        self._queued: set[str] = set()
        wanted = {
            "space": space.describe(),
            "objective": config.objective,
            "fnr_margin": config.fnr_margin,
            "seeds": config.seeds,
            **identity,
        }
        self._study = self._do(lambda: self._open(wanted))
        self.interrupt()

    def propose(self) -> Proposal | None:
        """Begin a trial; return None if there is none to begin now.

        Beside the reference, which every constraint is measured against, the published default
        alone runs: no other trial could be stopped early, or chosen by what is known.
        """
        if self.is_exhausted:
            return None
        reference = self.reference()
        with _quiet():
            asked = self._do(lambda: self._ask(reference))
        if asked is None:
            return None
        trial, params = asked
        self._running[trial.number] = trial
        self._reports[trial.number] = {}
        return Proposal(number=trial.number, name=trial.user_attrs.get(NAME), params=params)

    @property
    def is_exhausted(self) -> bool:
        """Whether all trials of ``sweep.trials`` have ended or are running."""
        ended = sum(record.counts for record in self.records())
        return ended + len(self._running) >= self.config.trials

    @property
    def running(self) -> list[int]:
        """Numbers of the trials that this process has begun and that have not ended."""
        return [number for number in self._running if number not in self._waiting]

    def report(self, number: int, step: int, scores: Scores) -> None:
        """Store a running trial's scores after an epoch; repeated reports change nothing.

        Args:
            step: epochs of the trial so far, over all its seeds, from 1.
            scores: means of the seeds before and of the best epoch of this one.
        """
        if step in self._reports[number]:
            return
        if self.objective.prunes:
            trial = self._running[number]
            self._do(lambda: trial.report(scores.macro_f2, step))
        self._reports[number][step] = scores

    def is_hopeless(self, number: int, scores: Sequence[Scores]) -> bool:
        """Return whether a running trial may end after some of its seeds."""
        if self.name_of(number) is not None:
            return False  # the first points are what the others are compared with
        best = best_record(self.records())
        return best is not None and self.objective.is_hopeless(scores, best.seed_scores)

    def complete(self, number: int, scores: Sequence[Scores]) -> None:
        """End a trial with the scores of its seeds; before the reference, when that ends.

        A process that is killed in between leaves a trial that the next one runs again, of
        trainings that are finished.
        """
        mean = Scores.mean(scores)
        attributes: dict[str, Any] = {SEED_SCORES: [scores_to_json(one) for one in scores]}
        reference = self.reference()
        is_reference = self.name_of(number) == REFERENCE
        if is_reference:
            reports = self._reports[number]
            attributes[CURVE] = {str(s): scores_to_json(one) for s, one in reports.items()}
            constraints = self.objective.constraints(mean, mean)
        elif reference is None:
            self._waiting[number] = scores
            return
        else:
            constraints = self.objective.constraints(mean, reference.scores)
        values = self.objective.values(mean)
        self._end(number, TrialState.COMPLETE, values, attributes, constraints)
        self._failed_in_a_row.clear()
        if is_reference:
            for other in list(self._waiting):
                self.complete(other, self._waiting.pop(other))

    def prune(self, number: int, reason: str) -> None:
        """End a trial that was stopped early; its constraints are those of its last report."""
        constraints, reports = {}, self._reports[number]
        if reports:
            step = max(reports)
            reference = self.reference().curve.get(step)
            if reference is not None:
                constraints = self.objective.constraints(reports[step], reference)
        self._end(number, TrialState.PRUNED, None, {REASON: reason}, constraints)
        self._failed_in_a_row.clear()

    def fail(self, number: int, reason: str) -> None:
        """End a trial that could not be run.

        Raises:
            GemixError: if it is the reference, or one failure too many in a row.
        """
        name = self.name_of(number)
        self._end(number, TrialState.FAIL, None, {REASON: reason}, {})
        self._failed_in_a_row.append(reason)
        if name == REFERENCE:
            raise GemixError(f"the trial without synthetic images failed: {reason}")
        count = len(self._failed_in_a_row)
        if count >= self.config.max_failures:
            raise GemixError(f"{count} trials failed one after another, the last one: {reason}")

    def name_of(self, number: int) -> str | None:
        """Return the name of a running trial, None if it is none of the first points."""
        return self._running[number].user_attrs.get(NAME)

    def interrupt(self) -> None:
        """Queue the running trials again, for the next process."""
        self._running.clear()
        self._waiting.clear()
        with _quiet():
            self._do(self._close_strays)

    def records(self) -> list[TrialRecord]:
        """Return all trials that have been begun, interrupted ones included, by number."""
        trials = self._do(lambda: self._study.get_trials(deepcopy=False))
        return [TrialRecord.of(t) for t in trials if t.state != TrialState.WAITING]

    @property
    def uid(self) -> str:
        """What identifies the study, and no other of its name."""
        first = self._do(lambda: self._study.get_trials(deepcopy=False))[0]
        return f"{self.config.study}, {first.datetime_start:%Y-%m-%d %H:%M:%S.%f}"

    def importance(self) -> dict[str, dict[str, float]]:
        """Return the importance of the parameters (:func:`.importance.importances`)."""
        with _quiet():
            return importances(self._do(lambda: self._study.get_trials(deepcopy=False)))

    def reference(self) -> TrialRecord | None:
        """Return the trial without synthetic images, None before it is complete."""
        found = (r for r in self.records() if r.name == REFERENCE and r.state == "complete")
        return next(found, None)

    def curves(self) -> Iterator[tuple[int, dict[int, float]]]:
        """Yield number and reported macro-F2 by step of every trial that counts."""
        trials = self._do(lambda: self._study.get_trials(deepcopy=False))
        for trial in trials:
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                yield trial.number, dict(trial.intermediate_values)

    def _open(self, wanted: Mapping[str, Any]) -> optuna.Study:
        with _quiet():
            study = optuna.create_study(
                storage=self._storage,
                study_name=self.config.study,
                directions=self.objective.directions,
                sampler=ConditionalSampler(self.space, self.config.sampler, self.config.seed),
                load_if_exists=True,
            )
        found = study.user_attrs.get(IDENTITY)
        if found is None and not study.get_trials(deepcopy=False):
            study.set_user_attr(IDENTITY, wanted)
        elif found != wanted:
            lines = "\n".join(f"  {line}" for line in differences(found or {}, wanted))
            raise ConfigError(
                f"sweep.study={self.config.study!r} was begun with other settings, which its "
                f"trials cannot be compared across:\n{lines}\nrepeat the earlier ones, choose "
                "another sweep.study, or pass --overwrite to begin again"
            )
        return study

    def _close_strays(self) -> None:
        """Queue what another process, or a call that failed half way, has left running."""
        trials = self._study.get_trials(deepcopy=False)
        repeated = {t.user_attrs.get(REPEATS) for t in trials}
        for trial in trials:
            if trial.state != TrialState.RUNNING or trial.number in self._running:
                continue
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            if params and trial.number not in repeated:  # in this order: a kill loses nothing
                name = {NAME: trial.user_attrs[NAME]} if NAME in trial.user_attrs else {}
                self._study.enqueue_trial(params, {**name, REPEATS: trial.number})
                log.info("trial %d was interrupted, it is run again", trial.number)
            self._storage.set_trial_user_attr(trial._trial_id, INTERRUPTED, True)
            self._study.tell(trial.number, state=TrialState.FAIL)

    def _ask(self, reference: TrialRecord | None) -> tuple[optuna.Trial, dict[str, Any]] | None:
        """Begin a trial; without a reference return None once both first points have begun."""
        self._close_strays()
        if reference is None:
            self._queue_first_point(REFERENCE)
        if reference is not None or self._running:
            self._queue_first_point(PUBLISHED)
        if reference is None and not self._study.get_trials(
            deepcopy=False, states=(TrialState.WAITING,)
        ):
            return None
        trial = self._study.ask()
        return trial, self.space.suggest(trial)

    def _queue_first_point(self, name: str) -> None:
        """Queue one of the first points, unless it is there; one that failed, once a process."""
        params = self.space.first_points().get(name)
        if params is None or name in self._queued:
            return
        trials = self._study.get_trials(deepcopy=False)
        if not any(t.user_attrs.get(NAME) == name and t.state != TrialState.FAIL for t in trials):
            self._study.enqueue_trial(params, {NAME: name})
        self._queued.add(name)

    def _end(
        self,
        number: int,
        state: TrialState,
        values: list[float] | None,
        attributes: Mapping[str, Any],
        constraints: Mapping[str, float],
    ) -> None:
        """Store how a trial ended. What the samplers read is there before it counts as ended."""
        trial = self._running[number]

        def end() -> None:
            if self._storage.get_trial(trial._trial_id).state.is_finished():
                return  # by an attempt whose answer was lost
            for key, value in attributes.items():
                trial.set_user_attr(key, value)
            for key, value in constraints.items():
                if key not in trial.constraints:
                    trial.set_constraint(key, value)
            self._study.tell(number, values, state)

        self._do(end)
        del self._running[number], self._reports[number]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return sentences on the values of two nested mappings that differ, by dotted path."""
    ours, theirs = dict(_leaves(new)), dict(_leaves(old))
    return [
        f"{path}: {theirs.get(path, 'nothing')} before, {ours.get(path, 'nothing')} now"
        for path in dict.fromkeys([*theirs, *ours])
        if theirs.get(path) != ours.get(path)
    ]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from announcing studies, what is experimental and what would make it quicker."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
