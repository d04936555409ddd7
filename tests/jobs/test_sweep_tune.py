"""The searcher and the scheduler as Ray Tune calls them, without a cluster."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from gemix.core.errors import GemixError, StoreError
from gemix.sweep.config import SweepConfig
from gemix.sweep.database import Retrying, connect
from gemix.sweep.objective import Scores
from gemix.sweep.space import SearchSpace
from gemix.sweep.study import SweepStudy
from tune.objective import ERROR, METRIC, SEED_SCORES, STEP
from tune.searcher import EndOfSweep, StudyScheduler, StudySearcher

EPOCHS, TOTAL = 4, 8  # of two seeds
CLASSES = 3
STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE


class Tune:
    """Calls searcher and scheduler in the order in which Ray Tune's controller does."""

    def __init__(self, folder, **settings):
        config = SweepConfig(**{"trials": 20, "sampler": "tpe", "hopeless_gap": None} | settings)
        space = SearchSpace(config, lr=1e-3, model="resnet10t")
        storage = connect(f"sqlite:///{folder}/study.db")
        self.study = SweepStudy(storage, config, space, {}, Retrying("the database", 0.0))
        self.searcher = StudySearcher(self.study, TOTAL, dict, lambda: 4)
        self.scheduler = StudyScheduler(self.searcher, self.study, TOTAL, CLASSES)
        self.count = 0

    def begin(self) -> SimpleNamespace | str | None:
        self.count += 1
        trial = SimpleNamespace(trial_id=f"tune-{self.count}")
        found = self.searcher.suggest(trial.trial_id)
        if not isinstance(found, dict):
            return found
        self.scheduler.on_trial_add(None, trial)
        return trial

    def result(self, trial, step: int, value: float, **more) -> bool:
        """Return whether the trial goes on."""
        scores = dataclasses.asdict(Scores(macro_f2=value, fnr=0.2))
        seeds = [scores] * (step // EPOCHS)
        result = {STEP: step, SEED_SCORES: seeds, **scores, **more}
        if self.scheduler.on_trial_result(None, trial, result) == CONTINUE:
            self.searcher.on_trial_result(trial.trial_id, result)
            return True
        self.scheduler.on_trial_complete(None, trial, result)
        self.searcher.on_trial_complete(trial.trial_id, result)
        return False

    def run(self, value: float, early: float | None = None) -> int:
        """Run a trial of one value; return after how many epochs it ended.

        Args:
            early: another value of the first two epochs.
        """
        trial, early = self.begin(), value if early is None else early
        values = {step: early if step <= 2 else value for step in range(1, TOTAL + 1)}
        return next(step for step in values if not self.result(trial, step, values[step]))


def states(tune: Tune) -> list[str]:
    return [record.state for record in tune.study.records()]


def test_trials_run_to_the_end_or_are_pruned(tmp_path):
    tune = Tune(tmp_path, grace_epochs=2, reduction_factor=2.0)
    ends = [tune.run(value) for value in (0.8, 0.5, 0.9, 0.6, 0.95, 0.5)]
    assert ends == [8, 8, 8, 2, 8, 2]  # the second is the published default
    assert states(tune) == ["complete"] * 3 + ["pruned", "complete", "pruned"]
    assert tune.study.records()[3].reason == "not among the best 50% after 2 epoch(s)"
    assert dict(tune.study.curves())[3] == {1: 0.6, 2: 0.6}
    assert tune.searcher.failure is None


@pytest.mark.parametrize("again", [False, True])
def test_no_trial_is_stopped_before_real_images_alone_have_taught_anything(tmp_path, again):
    """After two epochs they are no better than guessing; after four a rung is a rung."""
    tune = Tune(tmp_path, grace_epochs=2, reduction_factor=2.0)
    assert [tune.run(0.8, early=1 / 3), tune.run(0.7, early=0.4)] == [8, 8]
    if again:  # another process reads it in the database
        tune = Tune(tmp_path, grace_epochs=2, reduction_factor=2.0)
    assert [tune.run(0.9, early=0.2), tune.run(0.6, early=0.2)] == [8, 4]
    assert tune.study.records()[3].reason == "not among the best 50% after 4 epoch(s)"


@pytest.mark.parametrize("at", [1, 3, 5])
def test_the_rungs_are_those_of_an_undisturbed_run(tmp_path, at):
    """A new process after `at` trials, one of which it interrupted after its first rung."""
    values = (0.8, 0.7, 0.9, 0.75, 0.85, 0.95, 0.6)
    (tmp_path / "other").mkdir()
    undisturbed = Tune(tmp_path / "other", grace_epochs=2, reduction_factor=2.0)
    expected = [undisturbed.run(value) for value in values]
    tune = Tune(tmp_path, grace_epochs=2, reduction_factor=2.0)
    ends = [tune.run(value) for value in values[:at]]
    trial = tune.begin()
    for step in (1, 2, 3):
        if not tune.result(trial, step, 0.99):
            pytest.fail("it is the best")
    tune = Tune(tmp_path, grace_epochs=2, reduction_factor=2.0)
    assert ends + [tune.run(value) for value in values[at:]] == expected


def test_a_hopeless_trial_ends_after_its_first_seed(tmp_path):
    tune = Tune(tmp_path, grace_epochs=8, hopeless_gap=0.05)
    assert [tune.run(value) for value in (0.8, 0.1, 0.76, 0.7)] == [8, 8, 8, EPOCHS]
    assert tune.study.records()[3].reason == "far below the best trial on the first 1 seed(s)"


def test_a_front_is_not_pruned(tmp_path):
    tune = Tune(tmp_path, objective="pareto", grace_epochs=1, hopeless_gap=0.01)
    assert [tune.run(value) for value in (0.8, 0.7, 0.2, 0.1)] == [8] * 4
    assert states(tune) == ["complete"] * 4


def test_it_waits_for_the_reference_and_for_room(tmp_path):
    tune = Tune(tmp_path)
    reference, published = tune.begin(), tune.begin()
    assert tune.begin() is None
    for step in range(1, TOTAL + 1):
        tune.result(published, step, 0.7)
    assert tune.begin() is None and states(tune) == ["running"] * 2
    for step in range(1, TOTAL + 1):
        tune.result(reference, step, 0.8)
    assert states(tune) == ["complete"] * 2
    assert all(isinstance(tune.begin(), SimpleNamespace) for _ in range(4))
    assert tune.begin() is None


def test_it_is_finished_when_all_trials_have_begun(tmp_path):
    tune = Tune(tmp_path, trials=2)
    tune.run(0.8)
    tune.begin()
    assert tune.begin() == Searcher.FINISHED


def test_a_trial_that_fails_is_stored_with_its_reason(tmp_path):
    tune = Tune(tmp_path)
    tune.run(0.8)
    assert not tune.result(tune.begin(), 0, math.nan, **{ERROR: "the loss is nan"})
    lost = tune.begin()
    tune.searcher.on_trial_complete(lost.trial_id, None, error=True)
    records = tune.study.records()
    assert [record.state for record in records] == ["complete", "failed", "failed"]
    assert records[1].reason == "the loss is nan" and "process or node died" in records[2].reason
    assert tune.searcher.failure is None and not EndOfSweep(tune.searcher).stop_all()


def test_all_end_where_trial_after_trial_fails(tmp_path):
    tune = Tune(tmp_path, max_failures=2)
    tune.run(0.8)
    for _ in range(2):
        tune.result(tune.begin(), 0, math.nan, **{ERROR: "CUDA error"})
    assert isinstance(tune.searcher.failure, GemixError)
    assert "2 trials failed one after another, the last one: CUDA" in str(tune.searcher.failure)
    assert EndOfSweep(tune.searcher).stop_all() and tune.begin() == Searcher.FINISHED


def test_an_error_of_the_database_is_not_swallowed(tmp_path, monkeypatch):
    tune = Tune(tmp_path)
    trial = tune.begin()

    def away(*_):
        raise StoreError("the database is away")

    monkeypatch.setattr(tune.study, "complete", away)
    for step in range(1, TOTAL + 1):
        tune.result(trial, step, 0.8)
    assert str(tune.searcher.failure) == "the database is away"
    assert EndOfSweep(tune.searcher).stop_all()
    assert states(tune) == ["running"]
    again = Tune(tmp_path)  # the next process
    assert again.run(0.8) == TOTAL and states(again) == ["interrupted", "complete"]


def test_a_trial_that_ends_with_the_sweep_is_queued_again(tmp_path):
    tune = Tune(tmp_path)
    trial = tune.begin()
    assert tune.result(trial, 1, 0.5)
    tune.searcher.on_trial_complete(trial.trial_id, {STEP: 1, METRIC: 0.5})
    assert states(tune) == ["running"]
    tune.study.interrupt()
    assert tune.run(0.8) == TOTAL and states(tune) == ["interrupted", "complete"]
