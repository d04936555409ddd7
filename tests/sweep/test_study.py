"""A study outlives the processes that drive it."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from gemix.core.errors import ConfigError, GemixError
from gemix.io.sweep_record import PUBLISHED, REFERENCE
from gemix.sweep.objective import Scores
from gemix.sweep.records import best_record, pareto_front, ranking
from tests.sweep.scores import run_all, scores_of


def params_of(study, *states) -> list[dict]:
    return [r.params for r in study.records() if r.state in (states or ("complete",))]


def test_the_first_trials_are_the_reference_and_the_published_default(open_study):
    study = open_study()
    first = study.propose()
    assert (first.name, first.params) == (REFERENCE, {"ratio": 0.0})
    second = study.propose()
    assert second.name == PUBLISHED
    assert (second.params["temperature"], second.params["bias"]) == (1.0, 2.0)
    assert study.propose() is None  # nothing else runs before the reference is known
    study.complete(first.number, scores_of(first))
    assert study.propose().name is None


def test_the_published_default_may_end_before_the_reference(open_study):
    """It ends with it, with the constraint that only the reference gives; a kill runs it again."""
    study = open_study()
    first, second = study.propose(), study.propose()
    study.complete(second.number, scores_of(second, fnr=0.4))
    assert study.running == [first.number] and study.propose() is None
    assert [record.state for record in study.records()] == ["running", "running"]
    study = open_study()  # the process is killed
    first, second = study.propose(), study.propose()
    assert (first.name, second.name) == (REFERENCE, PUBLISHED)
    study.complete(second.number, scores_of(second, fnr=0.4))
    study.complete(first.number, scores_of(first, fnr=0.2))
    ended = {record.name: record for record in study.records() if record.state == "complete"}
    assert ended[PUBLISHED].constraints["fnr"] == pytest.approx(0.4 - 0.2 - 0.01)
    assert ended[PUBLISHED].scores.macro_f2 == Scores.mean(scores_of(second)).macro_f2
    assert not study.running and study.propose().name is None


def test_without_the_reference_there_is_no_trial_but_the_first_two(open_study):
    """The reference fails beside the published default, and a new process begins with both."""
    study = open_study()
    first, second = study.propose(), study.propose()
    study.complete(second.number, scores_of(second))
    with pytest.raises(GemixError, match="without synthetic images failed"):
        study.fail(first.number, "no images")
    study = open_study()
    assert {study.propose().name, study.propose().name} == {REFERENCE, PUBLISHED}
    assert study.propose() is None


def test_all_trials_run_once(open_study):
    study = open_study()
    run_all(study)
    assert len(params_of(study)) == 8 and study.is_exhausted
    assert run_all(open_study()) == []
    assert len(run_all(open_study(trials=10))) == 2


@pytest.mark.parametrize("at", range(6))
def test_a_killed_sweep_ends_with_the_trials_of_an_undisturbed_one(open_study, url, at, tmp_path):
    """Killed while trial `at` runs, and again while it is repeated."""
    undisturbed = open_study(storage=f"sqlite:///{tmp_path}/other.db", trials=6)
    expected = [proposal.params for proposal in run_all(undisturbed)]
    study, done = open_study(trials=6), 0
    while done < at:
        proposal = study.propose()
        study.complete(proposal.number, scores_of(proposal))
        done += 1
    lost = study.propose()
    study.report(lost.number, 1, Scores(macro_f2=0.5, fnr=0.5))
    assert open_study(trials=6).propose().params == lost.params
    last = open_study(trials=6)
    run_all(last)
    assert params_of(last) == expected
    assert params_of(last, "interrupted") == [expected[at]] * 2
    assert not params_of(last, "running")
    names = [r.name for r in last.records() if r.state == "complete"]
    assert names.count(REFERENCE) == names.count(PUBLISHED) == 1


def test_a_kill_between_two_calls_of_the_database_loses_nothing(open_study, url):
    """Queued again but not yet closed, and taken from the queue without any parameter read."""
    study = open_study()
    run_first = study.propose()
    study.complete(run_first.number, scores_of(run_first))
    lost = study.propose()
    raw = optuna.load_study(study_name="sweep", storage=url)
    raw.enqueue_trial(dict(lost.params), {"name": PUBLISHED, "repeats": lost.number})
    open_study()
    raw = optuna.load_study(study_name="sweep", storage=url)
    raw.ask()  # dies before it suggests anything
    repeated = open_study().propose()
    assert (repeated.name, repeated.params) == (PUBLISHED, lost.params)
    states = [t.state for t in optuna.load_study(study_name="sweep", storage=url).trials]
    assert states.count(TrialState.RUNNING) == 1 and states.count(TrialState.WAITING) == 0


def test_several_trials_at_a_time(open_study):
    study = open_study()
    reference = study.propose()
    study.complete(reference.number, scores_of(reference))
    running = [study.propose() for _ in range(7)]
    assert study.propose() is None and study.is_exhausted
    assert study.running == [p.number for p in running]
    study.interrupt()
    assert not study.running
    assert [p.params for p in (study.propose() for _ in range(7))] == [p.params for p in running]


def test_values_constraints_and_seeds_are_stored(open_study, url):
    study = open_study()
    reference, published, other = study.propose(), None, None
    study.complete(reference.number, scores_of(reference))
    published, other = study.propose(), study.propose()
    study.complete(published.number, scores_of(published, 0.9, fnr=0.3))
    study.complete(other.number, scores_of(other, 0.85, fnr=0.205))
    trials = optuna.load_study(study_name="sweep", storage=url).trials
    assert [t.value for t in trials] == pytest.approx([0.81, 0.91, 0.86])
    assert trials[1].constraints["fnr"] == pytest.approx(0.09)
    assert trials[2].constraints["fnr"] == pytest.approx(-0.005)
    best = best_record(study.records())  # not the infeasible one
    assert best.number == other.number and best.seed_scores[1].macro_f2 == pytest.approx(0.87)
    assert [r.number for r in ranking(study.records())] == [other.number, reference.number]


def test_stopped_trials_are_pruned_and_measured_against_the_reference_at_that_epoch(
    open_study, url
):
    study = open_study()
    reference = study.propose()
    for step, fnr in ((1, 0.6), (2, 0.4)):
        study.report(reference.number, step, Scores(macro_f2=0.5, fnr=fnr))
    study.complete(reference.number, scores_of(reference))
    published = study.propose()
    study.report(published.number, 1, Scores(macro_f2=0.4, fnr=0.5))
    study.report(published.number, 1, Scores(macro_f2=0.9, fnr=0.5))  # a restarted worker's
    study.prune(published.number, "below the median")
    trial = optuna.load_study(study_name="sweep", storage=url).trials[1]
    assert (trial.state, trial.intermediate_values) == (TrialState.PRUNED, {1: 0.4})
    assert trial.constraints["fnr"] == pytest.approx(0.5 - 0.6 - 0.01)
    assert study.records()[1].reason == "below the median"
    assert dict(study.curves()) == {0: {1: 0.5, 2: 0.5}, 1: {1: 0.4}}


def test_a_hopeless_trial_ends_after_a_seed_but_never_one_of_the_first(open_study):
    study = open_study(hopeless_gap=0.05)
    reference = study.propose()
    study.complete(reference.number, scores_of(reference, 0.8))
    published, other = study.propose(), study.propose()
    bad = [Scores(macro_f2=0.7, fnr=0.2)]
    assert study.is_hopeless(other.number, bad)
    assert not study.is_hopeless(other.number, [Scores(macro_f2=0.76, fnr=0.2)])
    assert not study.is_hopeless(published.number, bad)


def test_a_front(open_study):
    study = open_study(objective="pareto")
    numbers = []
    for macro_f2, fnr in ((0.80, 0.20), (0.85, 0.25), (0.84, 0.26), (0.70, 0.10)):
        proposal = study.propose()
        study.report(proposal.number, 1, Scores(macro_f2=0.5, fnr=0.5))  # is not pruned by
        study.complete(proposal.number, scores_of(proposal, macro_f2, fnr))
        numbers.append(proposal.number)
    front = [record.number for record in pareto_front(study.records())]
    assert front == [numbers[1], numbers[0], numbers[3]]


def test_another_search_space_is_refused_with_what_differs(open_study):
    open_study({"data": "abc"}).propose()
    with pytest.raises(ConfigError) as raised:
        open_study({"data": "abd"}, temperature=(0.2, 5.0), seeds=3, trials=99)
    lines = str(raised.value).splitlines()
    assert "  space.temperature: 0.1 to 10, log for softmax before, 0.2 to 5, log" in lines[1]
    assert lines[2:4] == ["  seeds: 2 before, 3 now", "  data: abc before, abd now"]
    assert "choose another sweep.study" in lines[-1]
    assert open_study(study="another", seeds=3).propose().name == REFERENCE


def test_a_study_of_another_program_is_left_alone(open_study, url):
    optuna.create_study(storage=url, study_name="sweep").ask()
    with pytest.raises(ConfigError, match="was begun with other settings"):
        open_study()


def test_a_sweep_ends_when_trial_after_trial_fails(open_study):
    study = open_study(max_failures=3)
    reference = study.propose()
    study.complete(reference.number, scores_of(reference))
    for _ in range(2):
        study.fail(study.propose().number, "the loss is nan")
    good = study.propose()
    study.complete(good.number, scores_of(good))
    for _ in range(2):
        study.fail(study.propose().number, "the loss is nan")
    with pytest.raises(GemixError, match=r"3 trials failed one after another.*out of memory"):
        study.fail(study.propose().number, "out of memory")
    assert [r.state for r in study.records()].count("failed") == 5
    # the published default is tried once more by the next process
    assert open_study(trials=20).propose().name == PUBLISHED


def test_nothing_can_be_said_without_the_reference(open_study):
    study = open_study()
    with pytest.raises(GemixError, match="without synthetic images failed: no images"):
        study.fail(study.propose().number, "no images")
    assert open_study().propose().name == REFERENCE
