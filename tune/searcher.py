"""Ray Tune's searcher and scheduler over a durable study.

In place of Ray's ``OptunaSearch``, which sets neither constraints nor attributes, goes on after an
error of the database, and calls trials that were stopped early complete. All state that matters is
in the study's database: what Tune itself would restore is never read.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ray.tune import Stopper
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from gemix.core.stop import STOP
from gemix.evaluation.classification.rates import chance_macro_f2
from gemix.io.sweep_record import REFERENCE
from gemix.sweep.objective import Scores
from gemix.sweep.records import format_params
from gemix.sweep.study import SweepStudy
from tune.objective import ERROR, METRIC, SEED_SCORES, STEP, scores_of_result

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial

log = logging.getLogger("gemix.sweep")


class StudySearcher(Searcher):
    """Hand the study's trials to Ray Tune, and what they report back to the study.

    Args:
        study: an open study.
        total: the step of a trial's last report.
        describe: what Tune passes to the trainable, from a trial's parameters.
        limit: how many trials may run at a time.

    Attributes:
        failure: the error after which the sweep must end; Tune itself would log it and go on.
        has_results: whether any trial has reported or ended.
    """

    def __init__(
        self,
        study: SweepStudy,
        total: int,
        describe: Callable[[Mapping[str, Any]], dict[str, Any]],
        limit: Callable[[], int],
    ):
        super().__init__()
        self._study, self._total = study, total
        self._describe, self._limit = describe, limit
        self._numbers: dict[str, int] = {}
        self._stopped: dict[str, str] = {}
        self.failure: Exception | None = None
        self.has_results = False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial; None to be asked again later."""
        if self.failure is not None:
            return Searcher.FINISHED
        try:
            if self._study.is_exhausted:
                return Searcher.FINISHED
            if len(self._study.running) >= self._limit():
                return None
            proposal = self._study.propose()
        except Exception as error:
            self.failure = error
            return Searcher.FINISHED
        if proposal is None:
            return None
        self._numbers[trial_id] = proposal.number
        name = f" ({proposal.name})" if proposal.name else ""
        log.info("trial %d%s: %s", proposal.number, name, format_params(proposal.params))
        return self._describe(proposal.params)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Store the report of an epoch, after which the trial goes on."""
        self.has_results = True
        self._try(lambda: self._report(trial_id, result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Store how a trial ended; one that ended with the sweep stays to be queued again."""
        self.has_results = True
        number = self._numbers.get(trial_id)
        if number is None or number not in self._study.running:
            return
        self._try(lambda: self._end(trial_id, number, result or {}, error))

    def stop_reason(self, trial_id: str, result: Mapping[str, Any]) -> str | None:
        """Return why a trial should end after one of its seeds, None if it should not."""
        seeds = [Scores(**one) for one in result.get(SEED_SCORES, ())]
        if seeds and self._study.is_hopeless(self._numbers[trial_id], seeds):
            return f"far below the best trial on the first {len(seeds)} seed(s)"
        return None

    def is_first_point(self, trial_id: str) -> bool:
        """Return whether the trial is one that the others are compared with."""
        return self._study.name_of(self._numbers[trial_id]) is not None

    def is_reference(self, trial_id: str) -> bool:
        """Return whether the trial is that of real images alone."""
        return self._study.name_of(self._numbers[trial_id]) == REFERENCE

    def mark_stopped(self, trial_id: str, reason: str) -> None:
        """Remember that the scheduler stops a trial."""
        self._stopped[trial_id] = reason

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: the database is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Refuse: the database is the truth."""
        raise NotImplementedError("a sweep goes on from its study, not from Tune's snapshot")

    def _report(self, trial_id: str, result: Mapping[str, Any]) -> None:
        self._study.report(self._numbers[trial_id], result[STEP], scores_of_result(result))

    def _end(self, trial_id: str, number: int, result: Mapping[str, Any], error: bool) -> None:
        if error:
            self._study.fail(number, "its process or node died, more often than it may")
        elif result.get(ERROR):
            log.warning("trial %d failed: %s", number, result[ERROR])
            self._study.fail(number, result[ERROR])
        elif result.get(STEP) == self._total:
            self._report(trial_id, result)
            self._study.complete(number, [Scores(**one) for one in result[SEED_SCORES]])
            log.info("trial %d: macro-F2 %.3f", number, result[METRIC])
        elif trial_id in self._stopped:
            self._report(trial_id, result)
            self._study.prune(number, self._stopped[trial_id])
            log.info("trial %d stopped: %s", number, self._stopped[trial_id])

    def _try(self, action: Callable[[], None]) -> None:
        """Keep an error for the driver; Tune would log it and go on."""
        try:
            action()
        except Exception as error:
            self.failure = self.failure or error


class StudyScheduler(FIFOScheduler):
    """ASHA over the epochs of all trials of a study, those of earlier processes included.

    The rungs are made again of the reports in the database. Trials that the others are compared
    with fill the rungs but are never stopped. No trial is stopped at a rung at which real images
    alone were no better than guessing: that early all classifiers say the same of every image, and
    ASHA would choose by noise.

    Args:
        searcher: of the study.
        study: its trials fill the rungs.
        total: the step of a trial's last report.
        classes: K, of the images.
    """

    def __init__(self, searcher: StudySearcher, study: SweepStudy, total: int, classes: int):
        super().__init__()
        self._searcher, self._total = searcher, total
        self._chance = chance_macro_f2(classes)
        self._reference: dict[int, float] = {}  # macro-F2 of real images alone, by step
        self._asha: ASHAScheduler | None = None
        if not study.objective.prunes:
            return
        config = study.config
        self._share = 1 / config.reduction_factor
        self._asha = ASHAScheduler(
            time_attr=STEP,
            metric=METRIC,
            mode="max",
            max_t=total,
            grace_period=min(config.grace_epochs, total),
            reduction_factor=config.reduction_factor,
        )
        reference = study.reference()
        for number, curve in study.curves():
            if reference is not None and number == reference.number:
                self._reference = dict(curve)
            before = SimpleNamespace(trial_id=f"study-{number}")
            self._asha.on_trial_add(None, before)
            for step, value in sorted(curve.items()):
                self._asha.on_trial_result(None, before, {STEP: step, METRIC: value})

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        """Place a trial in ASHA's bracket."""
        if self._asha is not None:
            self._asha.on_trial_add(tune_controller, trial)

    def on_trial_result(
        self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]
    ) -> str:
        """Return whether a trial goes on after an epoch."""
        if result.get(ERROR) or result[STEP] >= self._total:
            return TrialScheduler.STOP
        if self._asha is None:
            return TrialScheduler.CONTINUE
        decision = self._asha.on_trial_result(tune_controller, trial, result)
        if self._searcher.is_first_point(trial.trial_id):
            if self._searcher.is_reference(trial.trial_id):
                self._reference[result[STEP]] = result[METRIC]
            return TrialScheduler.CONTINUE
        if self._reference.get(result[STEP], math.inf) <= self._chance:
            decision = TrialScheduler.CONTINUE
        reason = self._searcher.stop_reason(trial.trial_id, result)
        if decision == TrialScheduler.STOP:
            reason = f"not among the best {self._share:.0%} after {result[STEP]} epoch(s)"
        if reason is None:
            return TrialScheduler.CONTINUE
        self._searcher.mark_stopped(trial.trial_id, reason)
        return TrialScheduler.STOP


class EndOfSweep(Stopper):
    """End all trials after Ctrl-C, or when the searcher cannot go on.

    Args:
        searcher: of the study.
    """

    def __init__(self, searcher: StudySearcher):
        self._searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return whether a single trial ends: never, for this reason."""
        del trial_id, result
        return False

    def stop_all(self) -> bool:
        """Return whether all end."""
        return STOP.requested or self._searcher.failure is not None
