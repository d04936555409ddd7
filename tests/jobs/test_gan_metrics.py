"""Image metrics beside a training: logged, within the budget, without a trace in the training."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from mlflow import MlflowClient

from gemix.config import MetricsConfig, PipelineConfig
from gemix.core.distributed import Workers
from gemix.core.errors import ConfigError, DataError
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.gan.checkpoints.best_snapshot import read_best
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.training.state import TrainingState
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.gan_training import metrics as gan_metrics
from gemix.steps.gan_training.metrics import SnapshotEvaluator, affordable
from gemix.steps.gan_training.stage import Stage
from gemix.steps.train_gan import training_spec
from gemix.tracking import mlflow_run as tracking

METRICS = {"kid", "kid_error", "fid", "precision", "recall", "density", "coverage"}


class Killed(BaseException):
    pass


def train(
    config: PipelineConfig, data: str, workspace: Workspace, *, kill_at: int | None = None
) -> tuple[TrainingState, str]:
    """A training as the job's worker does it, without Ray; returns its state and MLflow run.

    It costs as good as nothing, so the time of metrics is left out of account if there is any
    budget at all.
    """
    real = read_images([data], "train")
    images = InMemoryDataset(real.images, real.soft_labels, config.gan.seed)
    origin = training_spec(config, Manifest.load(Store(data)))
    with (
        tracking.start_run(config, workspace.workdir, "train-gan") as run,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(gan_metrics, "affordable", lambda takes, spent, budget: budget > 0)
        stage = Stage(Store(workspace.gan), origin, images, Workers(), run)
        metrics = SnapshotEvaluator(config, workspace, images, origin, Workers(), stage.log)
        metrics.evaluator.shards = Store(data)

        def at_snapshot(state, number):
            metrics.at_snapshot(state, number)
            if state.step == kill_at:
                raise Killed

        state = stage.run(at_snapshot)
        shipped = metrics.at_end(state)
        stage.log.finish(state, shipped.network)
    return state, run.run_id


def log_of(workspace: Workspace) -> dict[int, dict]:
    lines = Store(workspace.gan).read_bytes("log.jsonl").decode().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len({row["step"] for row in rows}) == len(rows)
    return {row["step"]: row for row in rows}


@pytest.fixture(scope="module")
def config(tiny_config) -> PipelineConfig:
    """Snapshots at steps 3 and 6 of 8, each evaluated."""
    metrics = dataclasses.replace(tiny_config.metrics, budget=1.0, every=1)
    return dataclasses.replace(tiny_config, metrics=metrics)


@pytest.fixture(scope="module")
def trained(config, prepared, tmp_path_factory):
    workspace = Workspace.at(tmp_path_factory.mktemp("metrics"))
    state, run = train(config, prepared.data, workspace)
    return workspace, state, run


def test_metrics_are_in_the_log_and_in_mlflow_with_the_extractor(trained):
    workspace, _, run = trained
    log = log_of(workspace)
    assert sorted(log) == list(range(1, 9))
    assert [step for step, row in log.items() if "kid" in row] == [3, 6, 8]
    for step in (3, 6, 8):
        assert log[step].keys() > METRICS | {"loss_g", "images", "real_images"}
        assert log[step]["extractor"].startswith("timm-random:test_resnet of seed 0 at 64 x 64 (")
    client = MlflowClient(f"sqlite:///{workspace.workdir}/mlflow.db")
    assert [m.step for m in client.get_metric_history(run, "kid")] == [3, 6, 8]
    assert client.get_run(run).data.tags["extractor"] == log[8]["extractor"]


def test_the_best_and_the_summary_are_kept(trained):
    workspace, _, _ = trained
    store, log = Store(workspace.gan), log_of(workspace)
    lowest = min((3, 6, 8), key=lambda step: log[step]["kid"])
    best, summary = read_best(store), store.read_json("metrics.json")
    assert best["weights"] == f"best-{lowest:08d}"
    assert best["score"] == log[lowest]["kid"] == summary["best"]["score"]
    assert summary["primary_metric"] == best["measured"]["figure"] == "kid"
    assert summary["last"]["kid"] == log[8]["kid"]
    assert store.exists("memorization.png")
    assert len(Store(workspace.metrics).list()) == 1


def test_metrics_leave_no_trace_in_the_training(trained, config, prepared, tmp_path):
    _, state, _ = trained
    without = dataclasses.replace(config, metrics=MetricsConfig(images=0))
    workspace = Workspace.at(tmp_path)
    plain, _ = train(without, prepared.data, workspace)
    for name, value in state.generator.state_dict().items():
        assert torch.equal(value, plain.generator.state_dict()[name])
    assert not Store(workspace.gan).exists("metrics.json")
    assert not Store(workspace.metrics).list()


def test_the_log_of_a_killed_training_is_that_of_one_that_was_not(
    trained, config, prepared, tmp_path
):
    workspace = Workspace.at(tmp_path)
    with pytest.raises(Killed):  # after the evaluation of step 6, before its checkpoint
        train(config, prepared.data, workspace, kill_at=6)
    train(config, prepared.data, workspace)
    ours, whole = log_of(workspace), log_of(trained[0])
    assert ours.keys() == whole.keys()
    for step, row in whole.items():
        values = {name: row[name] for name in (*METRICS, "extractor") if name in row}
        assert {name: ours[step][name] for name in values} == values
        assert ("kid" in ours[step]) == ("kid" in row)
    assert read_best(Store(workspace.gan)) == read_best(Store(trained[0].gan))


def test_what_exceeds_the_budget_is_postponed_and_said_but_not_the_last(
    config, prepared, tmp_path, caplog
):
    metrics = dataclasses.replace(config.metrics, budget=0.0)
    workspace = Workspace.at(tmp_path)
    train(dataclasses.replace(config, metrics=metrics), prepared.data, workspace)
    assert [step for step, row in log_of(workspace).items() if "kid" in row] == [8]
    said = caplog.text
    assert said.count("are postponed") == 2
    assert "metrics.budget is 0% of" in said


@pytest.mark.parametrize(
    ("takes", "spent", "training", "fits"),
    [(2, 0, 81, True), (2, 0, 79, False), (2, 3, 141, True), (2, 3, 139, False)],
)
def test_the_budget_counts_what_is_spent_this_evaluation_and_the_last(takes, spent, training, fits):
    assert affordable(takes, spent, 0.05 * training) == fits


def test_an_extractor_that_cannot_be_had_stops_a_training_before_it_begins(
    config, prepared, tmp_path
):
    metrics = dataclasses.replace(config.metrics, extractor="timm-random:nothing")
    workspace = Workspace.at(tmp_path)
    with pytest.raises(ConfigError, match="timm-random:nothing"):
        train(dataclasses.replace(config, metrics=metrics), prepared.data, workspace)
    assert not Store(workspace.gan).list()


def test_too_few_images_are_told(config, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(gan_metrics, "FEWEST_REAL", 1000)
    with pytest.raises(DataError, match=r"want 1000 or more; set metrics\.images=0"):
        train(config, prepared.data, Workspace.at(tmp_path))


def test_metrics_memorization_and_label_path_are_of_the_generator_that_ships(
    config, prepared, trained, tmp_path, monkeypatch
):
    """The first snapshot is made the best, so that it is not the last that ships."""
    whole = log_of(trained[0])
    first, last = whole[3], whole[8]
    scores = iter([0.0, 1.0, 1.0])
    keep = gan_metrics.save_if_best
    monkeypatch.setattr(
        gan_metrics,
        "save_if_best",
        lambda store, state, spec, score, measured: keep(
            store, state, spec, next(scores), measured
        ),
    )
    metrics = dataclasses.replace(config.metrics, use_best=True)
    workspace = Workspace.at(tmp_path)
    train(dataclasses.replace(config, metrics=metrics), prepared.data, workspace)
    store = Store(workspace.gan)
    summary = store.read_json("metrics.json")
    assert summary["used"] == "best" and summary["generator"]["kimg"] == first["kimg"]
    for name in METRICS:
        assert summary["generator"][name] == pytest.approx(first[name])
        assert summary["last"][name] == pytest.approx(last[name])
    for picture in ("label_path.png", "memorization.png"):
        assert store.read_bytes(picture) != Store(trained[0].gan).read_bytes(picture)
