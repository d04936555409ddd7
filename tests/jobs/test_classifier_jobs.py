"""train-classifier and evaluate on tiny sets, through Ray."""

from __future__ import annotations

import dataclasses
import json

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from gemix.classifier.bundle import Classifier
from gemix.config import PipelineConfig
from gemix.core.errors import AlreadyFinishedError, ConfigError, DataError
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.shards.reading import read_images
from gemix.data.shards.schema import to_columns, write_shard
from gemix.evaluation.classification.rates import score
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.evaluate import EVALUATION, evaluate
from gemix.steps.train_classifier import CLASSIFIERS, train_classifiers
from jobs._runtime.ray_executor import RayExecutor

CLASSES = ("benign", "normal")


def write_set(url: str, splits: dict[str, int], kind: str) -> None:
    """A shard set of flat images, dark or bright by class."""
    store, rng, entries = Store(url), np.random.default_rng(len(url)), []
    for split, count in splits.items():
        labels = np.arange(count) % 2
        images = rng.normal(80 + 60 * labels[:, None, None, None], 15, size=(count, 1, 16, 16))
        columns = to_columns(
            images.clip(0, 255).astype(np.uint8),
            np.eye(2)[labels],
            class_index=labels,
            patients=[f"{kind}-{split}-{index // 2}" for index in range(count)],
            sources=[f"{split}/{index}.png" for index in range(count)],
            seeds=range(count) if kind == "synthetic" else None,
            generator="ab" * 16 if kind == "synthetic" else None,
        )
        entries.append(write_shard(store, f"{split}-00000.parquet", columns, split))
    Manifest.of(entries, kind=kind, classes=CLASSES, resolution=16, channels=1).save(store)


def written(workspace: Workspace) -> dict[str, int]:
    """When each finished classifier was written, in nanoseconds."""
    store = Store(workspace.classifiers)
    return {
        name.split("/")[0]: store.filesystem.get_file_info(store.path(name)).mtime_ns
        for name in store.list(recursive=True)
        if name.endswith("model.json")
    }


@pytest.fixture(scope="module")
def config() -> PipelineConfig:
    return PipelineConfig.from_mapping(
        {
            "synthesis": {"methods": ["softmax", "onehot"]},
            "classifier": {"model": "test_resnet", "epochs": 2, "batch": 8, "seeds": 2, "lr": 1e-3},
            "compute": {"cpus_per_worker": 1, "workers": 0, "max_failures": 0},
        }
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    workspace = Workspace.at(tmp_path_factory.mktemp("work"))
    write_set(workspace.data, {"train": 24, "val": 12, "test": 20}, "real")
    write_set(workspace.synthetic("softmax"), {"train": 30}, "synthetic")
    return workspace


@pytest.fixture(scope="module")
def stopped(config, workspace) -> dict[str, int]:
    """A run that met a damaged shard half way, which is then mended; when each file was written."""
    store, name = Store(workspace.synthetic("softmax")), "train-00000.parquet"
    whole = store.read_bytes(name)
    store.write_bytes(name, whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    here = dataclasses.replace(config, compute=dataclasses.replace(config.compute, workers=0))
    with pytest.raises(DataError, match=f"{name}: damaged"):
        train_classifiers(here, workspace)
    store.write_bytes(name, whole)
    return written(workspace)


@pytest.fixture(scope="module")
def trained(config, workspace, stopped) -> list[dict]:
    return train_classifiers(config, workspace, executor=RayExecutor())


@pytest.fixture(scope="module")
def evaluation(config, workspace, trained) -> dict:
    return evaluate(config, workspace, executor=RayExecutor())


@pytest.mark.slow
def test_every_finished_set_is_trained_on_once_a_seed(trained, workspace):
    names = ["real-seed0", "real-seed1", "softmax-seed0", "softmax-seed1"]  # no onehot images
    assert [row["name"] for row in trained] == names
    assert Store(workspace.classifiers).read_json(CLASSIFIERS) == trained
    digests = {}
    for row in trained:
        found = Classifier.load(Store(workspace.classifiers) / row["name"])
        assert (found.method, found.config.seed) == (row["method"], row["seed"])
        assert found.config.epoch_images == 24  # as many steps with more images
        digests.setdefault(found.method, set()).add(found.training_digest)
    assert digests["real"] == {read_images([workspace.data], "train").digest}
    assert digests["softmax"].isdisjoint(digests["real"])


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_what_is_missing(stopped, trained, config, workspace):
    assert sorted(stopped) == ["real-seed0", "real-seed1"]
    assert stopped.items() < written(workspace).items()
    with pytest.raises(AlreadyFinishedError, match="--overwrite"):
        train_classifiers(config, workspace)


@pytest.mark.slow
def test_evaluation_agrees_with_its_predictions(evaluation, workspace):
    assert Store(workspace.evaluation).read_json(EVALUATION) == evaluation
    labels = read_images([workspace.data], "test").labels
    for result in evaluation["results"]:
        scores = []
        for seed in range(2):
            name = f"predictions/{result['method']}-seed{seed}.parquet"
            table = pq.read_table((Store(workspace.evaluation)).path(name)).to_pydict()
            assert table["label"] == labels.tolist()
            predicted = np.argmax(table["probabilities"], axis=1)
            scores.append(score(labels, predicted, 2, normal=1))
        for name in ("accuracy", "macro_f2", "fnr", "missed_disease_rate"):
            assert result[name] == pytest.approx(np.mean([s[name] for s in scores]))
        assert np.sum(result["confusion"]) == 2 * len(labels)
        low, high = result["intervals"]["macro_f2"]
        assert low <= result["macro_f2"] <= high
    real, softmax = evaluation["results"]
    assert real["difference_to_real"] == {}
    delta = softmax["difference_to_real"]["fnr"]["delta"]
    assert delta == pytest.approx(softmax["fnr"] - real["fnr"])
    assert evaluation["test"]["groups"] == 10


@pytest.mark.slow
def test_the_best_on_validation_is_registered_and_loads_back(
    evaluation, trained, workspace, monkeypatch
):
    best = max(trained, key=lambda row: (row["val_macro_f2"], -row["val_loss"]))
    assert (evaluation["best"], evaluation["best_classifier"]) == (best["method"], best)
    images = read_images([workspace.data], "test").images
    model = evaluation["registered_model"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace.workdir}/mlflow.db")
    loaded = mlflow.pyfunc.load_model(f"models:/{model['name']}/{model['version']}")
    bundle = Classifier.load(Store(workspace.classifiers) / best["name"])
    np.testing.assert_array_equal(loaded.predict(images), bundle.predict(images))


@pytest.mark.slow
def test_mlflow_has_metrics_of_every_epoch_and_the_confusion_matrices(evaluation, workspace):
    client = MlflowClient(f"sqlite:///{workspace.workdir}/mlflow.db")
    experiment = client.get_experiment_by_name("gemix").experiment_id
    testing, training, failed = client.search_runs([experiment])  # newest first
    assert [run.info.run_name for run in (training, testing)] == ["train-classifier", "evaluate"]
    assert [run.info.status for run in (failed, training, testing)] == [
        "FAILED",
        "FINISHED",
        "FINISHED",
    ]
    result = evaluation["results"][1]
    assert testing.data.metrics["softmax/macro_f2"] == pytest.approx(result["macro_f2"])
    names = {file.path for file in client.list_artifacts(testing.info.run_id, "confusion")}
    assert names == {"confusion/real.png", "confusion/softmax.png"}
    history = client.get_metric_history(training.info.run_id, "softmax-seed1/val_macro_f2")
    assert sorted(point.step for point in history) == [1, 2]


def test_bad_requests_are_refused_before_anything_starts(config, tmp_path):
    workspace = Workspace.at(tmp_path)
    with pytest.raises(DataError, match="gemix prepare"):
        train_classifiers(config, workspace)
    with pytest.raises(DataError, match="run gemix train-classifier"):
        evaluate(config, workspace)
    write_set(workspace.data, {"train": 8, "val": 4, "test": 4}, "real")
    with pytest.raises(DataError, match="run gemix synthesize first"):
        train_classifiers(config, workspace, methods=["onehot"])
    wrong = dataclasses.replace(config.classifier, model="resnt50")
    with pytest.raises(ConfigError, match="resnet50"):
        train_classifiers(dataclasses.replace(config, classifier=wrong), workspace)
    assert not Store(workspace.classifiers).list(recursive=True)
    assert not Store(workspace.data).exists("mlflow.db")
    assert json.loads(Store(workspace.data).read_bytes(MANIFEST))["kind"] == "real"
