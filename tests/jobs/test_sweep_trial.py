"""A trial of a sweep, and how a sweep is opened, without Ray."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from mlflow import MlflowClient

from gemix.classifier.bundle import Classifier
from gemix.classifier.decision.config import DecisionConfig
from gemix.config import PipelineConfig, load
from gemix.core.errors import AlreadyFinishedError, CheckpointError, ConfigError, DataError
from gemix.data.image_set import ImageSet
from gemix.data.leakage.overlap import Split
from gemix.data.leakage.provenance import PROVENANCE, write_provenance
from gemix.data.prepare.encoded_scan import preparation_settings
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.shards.reading import read_images
from gemix.data.shards.seal import sealed
from gemix.gan.checkpoints.generator_io import load_generator
from gemix.io.storage import Store
from gemix.io.sweep_record import read_sweep
from gemix.io.workspace import Workspace
from gemix.promotion.learned_from import why_other_images
from gemix.steps.runtime.test_openings import OPENINGS
from gemix.steps.sweep import trial as trial_module
from gemix.steps.sweep.confirm import check_overlap
from gemix.steps.sweep.finish import finish_sweep
from gemix.steps.sweep.opening import open_sweep
from gemix.steps.sweep.results import describe_winner, table, write_results
from gemix.steps.sweep.trial import Report, configured, run_trial, steps_of, training_images
from gemix.steps.synthesize import synthesize
from gemix.steps.train_teacher import train_teachers
from gemix.sweep.objective import Scores
from gemix.synthesis import labelling
from gemix.synthesis.cache import BLOCK, ImageCache
from gemix.synthesis.teacher import Teachers
from gemix.tracking.client import tracking_uri
from tests.jobs.sweep_files import SWEEP, write_generator


@pytest.fixture(scope="module")
def config(tiny_overrides) -> PipelineConfig:
    return load("demo", (*tiny_overrides, *SWEEP))


@pytest.fixture(scope="module")
def workspace(config, prepared) -> Workspace:
    write_generator(config, prepared)
    return prepared


@pytest.fixture(scope="module")
def splits(workspace):
    return [read_images([workspace.data], split) for split in ("train", "val")]


@pytest.fixture
def run(config, workspace, splits):
    """Runs a trial and returns its scores and reports."""

    def run_(settings=None, method=None) -> tuple[list[Scores], list[Report]]:
        reports: list[Report] = []
        found = run_trial(config, workspace, settings or {}, method, *splits, reports.append)
        return found, reports

    return run_


@pytest.fixture
def teacher(config, workspace) -> Iterator[Store]:
    """A teacher in the work directory, for one test."""
    train_teachers(config, workspace, overwrite=True)
    yield Store(workspace.teacher)
    shutil.rmtree(workspace.teacher)


def with_sweep(config: PipelineConfig, **changes) -> PipelineConfig:
    return dataclasses.replace(config, sweep=dataclasses.replace(config.sweep, **changes))


def test_a_trial_reports_every_epoch_of_its_seeds(run, config):
    scores, reports = run({"synthesis.ratio": 0.5}, "softmax")
    assert [report.step for report in reports] == [1, 2, 3, 4] and steps_of(config) == 4
    assert [len(report.seed_scores) for report in reports] == [0, 1, 1, 2]
    assert list(reports[-1].seed_scores) == scores and len(scores) == 2
    assert reports[-1].scores == Scores.mean(scores)
    assert reports[2].scores.macro_f2 != reports[0].scores.macro_f2 or scores[0] == scores[1]
    assert scores[0].missed_disease_rate is not None


def test_a_training_that_stops_early_takes_its_trial_to_the_last_step(config, workspace, splits):
    """At a learning rate of almost 0 the second epoch is no better than the first one."""
    stopping = dataclasses.replace(
        config, classifier=dataclasses.replace(config.classifier, epochs=9, early_stopping=1)
    )
    reports: list[Report] = []
    scores = run_trial(stopping, workspace, {"classifier.lr": 1e-8}, None, *splits, reports.append)
    steps = [report.step for report in reports]
    assert steps == sorted(set(steps)) and len(steps) < steps[-1] == steps_of(stopping)
    assert list(reports[-1].seed_scores) == scores and len(scores) == 2


def test_what_was_trained_before_is_not_trained_again(run, monkeypatch):
    """By a trial that a kill repeats, or by another one of the same images and settings."""
    expected = run({"labels.temperature": 0.5}, "softmax")
    monkeypatch.setattr(trial_module, "train", lambda *_, **__: pytest.fail("trained again"))
    assert run({"labels.temperature": 0.5}, "softmax") == expected
    with pytest.raises(pytest.fail.Exception):
        run({"labels.temperature": 0.6}, "softmax")


def test_a_training_is_repeated_where_labels_or_use_of_the_images_differ(run, teacher, monkeypatch):
    """Each of these is another training, and each of them is found again."""
    count = []
    train = trial_module.train
    monkeypatch.setattr(trial_module, "train", lambda *a, **k: count.append(1) or train(*a, **k))
    asks = [
        {"synthesis.labels": "asked"},
        {"synthesis.labels": "teacher"},
        {"synthesis.labels": "mixture", "synthesis.mixture": 0.3},
        {"synthesis.labels": "mixture", "synthesis.mixture": 0.7},
        {"classifier.recipe": "weight", "classifier.synthetic_weight": 0.3},
        {"classifier.recipe": "weight", "classifier.synthetic_weight": 0.7},
        {"classifier.recipe": "pretrain", "classifier.synthetic_share": 0.3},
        {"classifier.recipe": "curriculum", "classifier.synthetic_share": 0.3},
    ]
    for _ in range(2):
        for ask in asks:
            run({"synthesis.ratio": 0.7, **ask}, "onehot")
    assert len(count) == 2 * len(asks)  # two seeds


def test_a_trial_trains_on_the_labels_that_its_source_says(config, workspace, splits, teacher):
    real = splits[0]
    asked, seen, mixed = (
        training_images(
            configured(config, {"synthesis.ratio": 0.5, "synthesis.labels": source, **more}),
            *(workspace, "softmax", real),
        )
        for source, more in (
            ("asked", {}),
            ("teacher", {}),
            ("mixture", {"synthesis.mixture": 0.25}),
        )
    )
    np.testing.assert_array_equal(asked.images, mixed.images)
    made = slice(len(real), None)
    probabilities = Teachers.load(workspace.teacher).probabilities(asked.images[made])[:, 0]
    np.testing.assert_allclose(seen.soft_labels[made], probabilities, atol=1e-5)
    mixture = 0.25 * seen.soft_labels[made] + 0.75 * asked.soft_labels[made]
    np.testing.assert_allclose(mixed.soft_labels[made], mixture, atol=1e-6)
    np.testing.assert_array_equal(mixed.labels[made], mixture.argmax(axis=1))
    assert len({asked.digest, seen.digest, mixed.digest}) == 3


def test_label_sources_are_searched_where_there_is_a_teacher(config, workspace, teacher):
    sweep = open_sweep(config, workspace, overwrite=True)
    described = sweep.study.space.describe()
    assert described["label_source"] == "one of asked, teacher, mixture"
    assert described["mixture"] == "0 to 1 for mixture" and "recipe" not in described
    sweep.study.propose()
    names = with_sweep(config, label_sources=("asked", "teacher"), recipes=("mix", "weight"))
    with pytest.raises(ConfigError) as raised:
        open_sweep(names, workspace)
    for line in (
        "space.label_source: one of asked, teacher, mixture before, one of asked, teacher now",
        "space.mixture: 0 to 1 for mixture before, nothing now",
        "space.recipe: nothing before, one of mix, weight now",
    ):
        assert line in str(raised.value)
    with pytest.raises(ConfigError, match=r"space\.label_source: .* before, nothing now"):
        open_sweep(with_sweep(config, label_sources=()), workspace)


def test_without_a_teacher_labels_are_those_of_the_settings(config, workspace):
    assert (
        "label_source" not in open_sweep(config, workspace, overwrite=True).study.space.describe()
    )
    with pytest.raises(CheckpointError, match="run gemix train-teacher"):
        open_sweep(with_sweep(config, label_sources=("asked", "mixture")), workspace)
    assert open_sweep(with_sweep(config, label_sources=("asked",)), workspace, overwrite=True)


def test_a_teacher_that_learned_from_held_out_images_is_refused(config, workspace, teacher):
    """Also where synthesis.labels=asked, and only the search may choose it."""
    write_provenance(teacher, [Split(Store(workspace.data), "val")], [])
    with pytest.raises(DataError, match="the teacher"):
        open_sweep(config, workspace, overwrite=True)
    write_provenance(teacher, [Split(Store(workspace.data), "test")], [])
    with pytest.raises(DataError, match="the teacher"):
        check_overlap(config, workspace)
    check_overlap(with_sweep(config, label_sources=()), workspace)


def test_a_recipe_that_the_augmentation_rules_out_is_refused(config, workspace):
    mixing = dataclasses.replace(config.classifier, augment="ct+mixup")
    config = dataclasses.replace(config, classifier=mixing)
    with pytest.raises(ConfigError, match=r"(?s)sweep\.recipes: leave weight out.*beside mixup"):
        open_sweep(with_sweep(config, recipes=("mix", "weight")), workspace)


def test_a_trial_may_be_ended_by_its_report(config, workspace, splits):
    class Ended(Exception):
        pass

    def report(one: Report) -> None:
        raise Ended

    with pytest.raises(Ended):
        run_trial(config, workspace, {"classifier.lr": 0.01}, None, *splits, report)


def test_the_test_split_is_out_of_reach(config, workspace):
    assert len(read_images([workspace.data], "test"))
    with sealed("test"):
        assert len(read_images([workspace.data], "val"))
        for split in ("test", None):
            with pytest.raises(DataError, match="the test split is out of reach"):
                read_images([workspace.data], split)
        with pytest.raises(DataError, match="out of reach"):
            list(Split(Store(workspace.data), "test"))
    assert len(read_images([workspace.data], "test"))


def test_cached_images_are_those_of_synthesize(config, workspace, tmp_path):
    synthesize(config, workspace, methods=["softmax"])
    made = read_images([workspace.synthetic("softmax")])
    cache, generator = ImageCache(Store(tmp_path)), load_generator(Store(workspace.gan))
    ask = {"labels": config.labels, "config": config.synthesis}
    found = cache.images(generator, "softmax", count=len(made), **ask)
    np.testing.assert_array_equal(found.images, made.images)
    np.testing.assert_array_equal(found.soft_labels, made.soft_labels)
    np.testing.assert_array_equal(found.labels, made.labels)


def test_images_are_made_once_for_all_label_sources_and_seen_once(
    config, workspace, teacher, tmp_path, monkeypatch
):
    """And the labels are those that synthesize writes."""
    cache, generator = ImageCache(Store(tmp_path)), load_generator(Store(workspace.gan))
    teachers, count = Teachers.load(workspace.teacher), BLOCK + 5

    def ask(source: str, mixture: float = 0.5) -> ImageSet:
        settings = dataclasses.replace(config.synthesis, labels=source, mixture=mixture)
        made = {"labels": config.labels, "config": settings, "count": count}
        return cache.images(generator, "softmax", **made, teachers=teachers)

    asked = ask("asked")
    with monkeypatch.context() as patch:
        patch.setattr(labelling, "sample_images", lambda *_, **__: pytest.fail("made again"))
        seen = ask("teacher")
        patch.setattr(Teachers, "probabilities", lambda *_: pytest.fail("seen again"))
        mixed = ask("mixture", 0.25)
    for found in (seen, mixed):
        np.testing.assert_array_equal(found.images, asked.images)
    assert (asked.labels != seen.labels).any()
    settings = dataclasses.replace(config.synthesis, labels="mixture", mixture=0.25, count=count)
    changed = dataclasses.replace(config, synthesis=settings)
    synthesize(changed, workspace, methods=["softmax"], into=lambda _: f"{tmp_path}/set")
    made = read_images([f"{tmp_path}/set"])
    np.testing.assert_array_equal(mixed.images, made.images)
    np.testing.assert_array_equal(mixed.soft_labels, made.soft_labels)
    np.testing.assert_array_equal(mixed.labels, made.labels)
    (damaged,) = (n for n in Store(tmp_path).list(recursive=True) if "000000000-seen" in n)
    Store(tmp_path).write_bytes(damaged, b"")
    np.testing.assert_array_equal(ask("mixture", 0.25).soft_labels, mixed.soft_labels)


def test_a_larger_set_begins_with_the_smaller_one(config, workspace, tmp_path):
    store, generator = Store(tmp_path), load_generator(Store(workspace.gan))
    ask = {"labels": config.labels, "config": config.synthesis}
    small = ImageCache(store).images(generator, "onehot", count=20, **ask)
    written = store.file_versions(recursive=True)
    large = ImageCache(store).images(generator, "onehot", count=BLOCK + 5, **ask)
    assert written.items() < store.file_versions(recursive=True).items() and len(written) == 1
    np.testing.assert_array_equal(large.images[:20], small.images)
    assert len(large) == BLOCK + 5 and large.digest != small.digest
    name = next(iter(written))
    store.write_bytes(name, store.read_bytes(name)[:-40])  # mended
    again = ImageCache(store).images(generator, "onehot", count=20, **ask)
    np.testing.assert_array_equal(again.images, small.images)
    other = dataclasses.replace(config.labels, temperature=0.1)
    ImageCache(store).images(generator, "onehot", count=1, labels=other, config=config.synthesis)
    assert len(store.list(recursive=True)) == 3


def test_a_sweep_is_opened_and_leaves_its_results(config, workspace):
    config = dataclasses.replace(config, sweep=dataclasses.replace(config.sweep, fresh_seeds=0))
    sweep = open_sweep(config, workspace, overwrite=True)
    counts = Manifest.load(Store(workspace.data)).counts["train"]
    assert len(sweep.training) == sum(counts.values())
    while (proposal := sweep.study.propose()) is not None:
        value = 0.5 + 0.01 * proposal.number
        sweep.study.complete(proposal.number, [Scores(macro_f2=value, fnr=0.3)] * 2)
    results = write_results(sweep, None)
    assert (results["best"], results["top"]) == (3, [3, 2, 1])
    assert (results["reference"], results["published_default"]) == (0, 1)
    assert results["trials"][1]["settings"]["labels.temperature"] == 1.0
    assert results["trials"][0]["settings"] == {"synthesis.ratio": 0.0}
    text = table(sweep.study.records(), sweep.study.objective)
    assert text.splitlines()[1].split()[:3] == ["3", "0.530", "0.300"]
    assert "(published default)" in text and "trials: 4 complete; 0 of" in text
    with pytest.raises(AlreadyFinishedError, match=r"all 4 trials .* raise sweep\.trials"):
        open_sweep(config, workspace)
    more = dataclasses.replace(config.sweep, trials=5)
    assert open_sweep(dataclasses.replace(config, sweep=more), workspace).study.propose()
    assert not open_sweep(config, workspace, overwrite=True).study.records()


def test_the_winner_is_chosen_on_fresh_seeds_and_tested_once(config, workspace, monkeypatch):
    settings = dataclasses.replace(config.sweep, fresh_seeds=2)
    config = dataclasses.replace(config, sweep=settings)
    sweep = open_sweep(config, workspace, overwrite=True)
    while (proposal := sweep.study.propose()) is not None:
        value = 0.99 - 0.01 * (proposal.number != 3)  # of trial 3, by luck
        sweep.study.complete(proposal.number, [Scores(macro_f2=value, fnr=0.01)] * 2)
    openings = Store(workspace.workdir)
    before = len(openings.read_json(OPENINGS)) if openings.exists(OPENINGS) else 0
    found = finish_sweep(sweep)["confirmed"]
    names = [row["name"] for row in found["candidates"]]
    assert names == ["real only", "published default", "trial 3"]
    assert found["winner"]["name"] == "real only"  # after two epochs nothing is better
    assert found["winner"]["searched"]["macro_f2"] >= 0.98
    fresh = found["winner"]["fresh"]["macro_f2"]
    assert found["winner"]["overfitted"] == pytest.approx(
        found["winner"]["searched"]["macro_f2"] - fresh
    )
    store = Store(workspace.sweep) / "confirmed"
    assert found["real_only"] == found["winner"]["classifier"]
    assert not Store(workspace.sweep_winner).exists(MANIFEST)
    seeds = {Classifier.load(store / f"trial-3-{index}").config.seed for index in range(2)}
    searched = {config.classifier.seed + index for index in range(settings.seeds)}
    assert len(seeds) == 2 and not seeds & searched
    digests = {Classifier.load(store / f"trial-3-{index}").training_digest for index in range(2)}
    assert len(digests) == 2  # other images too
    test = read_images([workspace.data], "test")
    rows = [Classifier.load(store / f"real-only-{index}") for index in range(2)]
    right = [(one.predict(test.images).argmax(axis=1) == test.labels).mean() for one in rows]
    assert found["test"]["results"]["real"]["accuracy"] == pytest.approx(np.mean(right))
    assert len(openings.read_json(OPENINGS)) == before + 1
    text = describe_winner(found)
    assert "macro-F2 in the search less" in text and "to promote it" not in text
    settings = {
        "labels.temperature": 0.5,
        "labels.class_weights": None,
        "synthesis.ratio": 0.25,
        "synthesis.labels": "mixture",
        "synthesis.mixture": 0.3,
        "classifier.recipe": "pretrain",
    }
    soft = found["winner"] | {"method": "softmax", "settings": settings}
    command = describe_winner(found | {"winner": soft}).partition("--redo -c ... -w ... ")[2]
    changed = load("demo", shlex.split(command))
    assert changed.synthesis.methods == ("softmax",) and changed.synthesis.count is None
    assert changed.labels.temperature == 0.5 and changed.labels.class_weights is None
    assert (changed.synthesis.labels, changed.synthesis.mixture) == ("mixture", 0.3)
    assert changed.classifier.recipe == "pretrain"
    assert read_sweep(Store(workspace.sweep)).confirmed.winner.name == "real only"
    client = MlflowClient(tracking_uri(workspace.workdir))
    [experiment] = client.search_experiments(filter_string="name = 'gemix-demo'")
    runs = client.search_runs([experiment.experiment_id], "tags.`gemix.search` != ''")
    assert sorted(run.info.run_name for run in runs) == [
        "trial 0 (real only)",
        "trial 1 (published default)",
        "trial 2",
        "trial 3",
    ]
    [best] = [run for run in runs if run.info.run_name == "trial 3"]
    assert best.data.metrics["val_macro_f2"] == 0.99 and best.data.tags["feasible"] == "True"
    assert best.data.params["method"] in ("softmax", "onehot") and "ratio" in best.data.params
    parent = client.get_run(best.data.tags["mlflow.parentRunId"])
    assert parent.info.run_name == "sweep" and parent.data.tags["gemix.winner"] == "real only"
    # what is trained is kept
    monkeypatch.setattr("gemix.steps.runtime.classifier_training.train", None)
    again = finish_sweep(sweep)["confirmed"]
    assert again["candidates"] == found["candidates"]
    assert again["test"]["openings"] == found["test"]["openings"] + 1
    runs = client.search_runs([experiment.experiment_id], "tags.`gemix.search` != ''")
    assert len(runs) == 4  # nothing twice


def test_the_winner_leaves_the_images_that_its_best_classifier_was_trained_on(
    config, workspace, monkeypatch
):
    config = with_sweep(config, fresh_seeds=2)
    sweep = open_sweep(config, workspace, overwrite=True)
    while (proposal := sweep.study.propose()) is not None:
        scores = Scores(macro_f2=0.5 + 0.1 * (proposal.number == 3), fnr=0.01)
        sweep.study.complete(proposal.number, [scores] * 2)
    monkeypatch.setattr(
        "gemix.steps.sweep.confirm.choose_winner", lambda found, *_, **__: (found[-1], {})
    )
    found = finish_sweep(sweep)["confirmed"]
    assert found["winner"]["name"] == "trial 3"
    store, made = Store(workspace.sweep) / "confirmed", Store(workspace.sweep_winner)
    classifiers = {
        name: Classifier.load(store / name) for name in (f"trial-3-{index}" for index in range(2))
    }
    best = found["winner"]["classifier"]
    assert classifiers[best].validation["val_macro_f2"] == max(
        one.validation["val_macro_f2"] for one in classifiers.values()
    )
    real, images = Manifest.load(Store(workspace.data)), Manifest.load(made)
    assert why_other_images(classifiers[best], real, {classifiers[best].method: images}) is None
    (other,) = classifiers.keys() - {best}
    assert why_other_images(classifiers[other], real, {classifiers[other].method: images})
    assert classifiers[best].preprocessing == preparation_settings(real)
    assert Store(workspace.sweep).read_json("sweep.json")["confirmed"]["test"]["digest"] == (
        real.content_digest("test")
    )
    made.write_bytes("audit.json", b"kept")
    finish_sweep(sweep)
    assert made.read_bytes("audit.json") == b"kept"
    assert "gemix promote --sweep" in describe_winner(found)


def test_a_generator_that_learned_from_the_test_images_is_not_confirmed(config, workspace):
    sweep = open_sweep(config, workspace, overwrite=True)
    proposal = sweep.study.propose()
    sweep.study.complete(proposal.number, [Scores(macro_f2=0.5, fnr=0.3)] * 2)
    gan = Store(workspace.gan)
    write_provenance(gan, [Split(Store(workspace.data), "test")], [])
    try:
        with pytest.raises(DataError, match="the generator"):
            check_overlap(config, workspace)
        with pytest.raises(DataError, match="the generator"):
            finish_sweep(sweep)
    finally:
        gan.delete(PROVENANCE)
    # the search is not lost, and the same command chooses the winner
    assert read_sweep(Store(workspace.sweep)).confirmed is None
    few = dataclasses.replace(config, sweep=dataclasses.replace(config.sweep, trials=1))
    assert finish_sweep(open_sweep(few, workspace))["confirmed"]["winner"]["name"] == "real only"
    with pytest.raises(AlreadyFinishedError, match="all 1 trials"):
        open_sweep(few, workspace)


def test_what_would_fail_after_the_search_is_said_before_it(config, workspace):
    decision = DecisionConfig(rule="sensitivity", level=0.99)
    with pytest.raises(DataError, match="needs 99 diseased patients"):
        open_sweep(dataclasses.replace(config, decision=decision), workspace, overwrite=True)
    with pytest.raises(ConfigError, match="fresh_seeds: given 1, allowed: 2 or more"):
        dataclasses.replace(config.sweep, fresh_seeds=1)


def test_what_would_change_the_worth_of_a_trial_is_refused(config, workspace):
    open_sweep(config, workspace, overwrite=True).study.propose()
    longer = dataclasses.replace(config.classifier, epochs=3)
    with pytest.raises(ConfigError, match=r"settings\.classifier\.epochs: 2 before, 3 now"):
        open_sweep(dataclasses.replace(config, classifier=longer), workspace)
    operational = dataclasses.replace(config.sweep, trials=9, seed=5, concurrent=1)
    open_sweep(dataclasses.replace(config, sweep=operational), workspace)


def test_a_generator_that_learned_from_the_validation_images_is_refused(config, workspace):
    gan = Store(workspace.gan)
    write_provenance(gan, [Split(Store(workspace.data), "val")], [])
    try:
        with pytest.raises(DataError, match="the generator"):
            open_sweep(config, workspace)
    finally:
        gan.delete(PROVENANCE)


def test_bad_requests_are_refused_before_anything_is_written(config, workspace, tmp_path):
    with pytest.raises(DataError, match="gemix prepare"):
        open_sweep(config, Workspace.at(tmp_path))
    wrong = dataclasses.replace(config.sweep, models=("resnt18", "test_resnet"))
    with pytest.raises(ConfigError, match="resnet18"):
        open_sweep(dataclasses.replace(config, sweep=wrong), workspace)
    assert not Store(tmp_path).list(recursive=True)
