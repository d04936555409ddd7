"""The evaluation of classifiers: what is registered, averaged, warned of and refused."""

from __future__ import annotations

import base64
import dataclasses
import logging
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from gemix.classifier.bundle import Classifier
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.decision.config import DecisionConfig
from gemix.classifier.decision.decision import Decision
from gemix.classifier.models import ModelSpec, build
from gemix.classifier.normalization import Normalization
from gemix.config import PipelineConfig
from gemix.core.errors import CheckpointError, DataError, TrackingError
from gemix.data.leakage.provenance import write_provenance, write_withheld_provenance
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.data.shards.schema import to_columns, write_shard
from gemix.io.results import read_evaluation
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.evaluate import evaluate
from gemix.steps.runtime.executor import LocalExecutor
from gemix.steps.runtime.overlap import real_splits
from gemix.steps.train_classifier import CLASSIFIERS, train_classifiers
from jobs._runtime import cli
from tests.steps.planted_classifiers import planted, write_set, write_teacher

CLASSES = ("benign", "non-normal", "Normal cases")
CONFIG = PipelineConfig.from_mapping({"compute": {"cpus_per_worker": 1, "workers": 0}})


def write_data(url: str) -> None:
    store, rng, entries = Store(url), np.random.default_rng(0), []
    for split, count in (("train", 6), ("val", 6), ("test", 36)):
        labels = np.arange(count) % 3
        columns = to_columns(
            rng.integers(0, 256, (count, 1, 32, 32), dtype=np.uint8),
            np.eye(3)[labels],
            class_index=labels,
            patients=[f"{split}-{index % 12}" for index in range(count)],
            sources=[f"{split}/{index}.png" for index in range(count)],
        )
        entries.append(write_shard(store, f"{split}-00000.parquet", columns, split))
    Manifest.of(entries, kind="real", classes=CLASSES, resolution=32, channels=1).save(store)


def write_classifier(workspace: Workspace, seed: int, score: float, *, broken: bool = False):
    """A network of random weights that claims a validation score."""
    spec = ModelSpec(model="test_resnet", classes=3, channels=1, resolution=32)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = build(spec).state_dict()
    state["fc.weight"] *= 30  # so that it does not say the same of all images
    if broken:
        state["fc.weight"][0, 0] = float("nan")
    validation = {"epoch": 1, "val_macro_f2": score, "val_loss": 1.0}
    Classifier(
        spec=spec,
        normalization=Normalization(mean=(0.5,), std=(0.3,)),
        classes=CLASSES,
        method="real",
        config=ClassifierConfig(model="test_resnet", seed=seed),
        training_digest="0" * 64,
        history=(validation,),
        validation=validation,
        state=state,
    ).save(Store(f"{workspace.classifiers}/real-seed{seed}"))
    return {"name": f"real-seed{seed}", "method": "real", "seed": seed, **validation}


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    workspace = Workspace.at(tmp_path)
    write_data(workspace.data)
    return workspace


def test_below_chance_is_evaluated_and_not_registered(workspace, caplog):
    rows = [write_classifier(workspace, seed, score=0.2) for seed in range(2)]
    Store(workspace.classifiers).write_json(CLASSIFIERS, rows)
    with caplog.at_level(logging.INFO):
        found = evaluate(CONFIG, workspace)
    assert found["registered_model"] is None
    assert "macro-F2 of 0.200 on validation is below chance (0.238)" in caplog.text
    assert "healthy class: Normal cases (data.normal_class)" in caplog.text
    assert found["test"]["normal_class"] == "Normal cases"
    # patient i has images of class i % 3 alone
    assert found["test"]["groups_by_class"] == dict.fromkeys(CLASSES, 4)
    assert "groups: benign (4), non-normal (4), Normal cases (4);" in caplog.text
    (row,) = found["results"]
    for rate, macro in (("precision", "macro_precision"), ("recall", "macro_recall")):
        mean = np.mean([of[rate] for of in row["per_class"].values()])
        assert mean == pytest.approx(row[macro])


def test_a_classifier_that_is_not_finite_is_refused(workspace):
    rows = [write_classifier(workspace, 0, score=0.9, broken=True)]
    Store(workspace.classifiers).write_json(CLASSIFIERS, rows)
    with pytest.raises(CheckpointError, match=r"real-seed0: 1 of \d+ weights are not finite"):
        evaluate(CONFIG, workspace)
    assert not Store(workspace.evaluation).exists("evaluation.json")
    # others may have been predicted before: the test set counts as opened
    rows = [write_classifier(workspace, 0, score=0.2)]
    Store(workspace.classifiers).write_json(CLASSIFIERS, rows)
    assert evaluate(CONFIG, workspace)["test_openings"] == 2


def test_a_registry_that_is_away_does_not_cost_the_evaluation(workspace, caplog, monkeypatch):
    def away(*_):
        raise TrackingError("MLflow store http://127.0.0.1:9: no answer")

    monkeypatch.setattr("gemix.tracking.model_registry.register", away)
    rows = [write_classifier(workspace, 0, score=0.9)]
    Store(workspace.classifiers).write_json(CLASSIFIERS, rows)
    assert evaluate(CONFIG, workspace)["registered_model"] is None
    assert read_evaluation(Store(workspace.evaluation)).best_classifier.name == "real-seed0"
    assert "real-seed0 is not registered: MLflow store" in caplog.text
    assert "gemix evaluate --overwrite" in caplog.text


def test_rates_follow_the_decision_and_its_calibration_is_told(workspace):
    decision = DecisionConfig(rule="specificity", level=0.9)
    row = write_classifier(workspace, 0, score=0.5)
    store = Store(f"{workspace.classifiers}/{row['name']}")
    classifier, val = Classifier.load(store), read_images([workspace.data], "val")
    logits = classifier.logits(val.images)
    fitted = Decision.fit(logits, val.labels, val.groups, 2, decision)
    assert fitted.temperature > 2  # the weights are random, and the last ones large
    dataclasses.replace(classifier, decision=fitted).save(store)
    Store(workspace.classifiers).write_json(CLASSIFIERS, [row])
    [found] = evaluate(CONFIG, workspace)["results"]
    table = pq.read_table(f"{workspace.evaluation}/predictions/{row['name']}.parquet").to_pydict()
    probabilities, labels = np.array(table["probabilities"], np.float32), np.array(table["label"])
    disease = probabilities[:, 0] + probabilities[:, 1].astype(np.float64)
    right = np.where(disease >= fitted.threshold, probabilities[:, :2].argmax(axis=1), 2)
    np.testing.assert_array_equal(table["predicted"], right)
    assert found["accuracy"] == pytest.approx((right == labels).mean())
    most_probable = probabilities.argmax(axis=1)
    assert not np.array_equal(right, most_probable)
    assert found["most_probable"]["accuracy"] == pytest.approx((most_probable == labels).mean())
    truth = np.eye(3)[labels]
    test = read_images([workspace.data], "test")
    raw = torch.from_numpy(classifier.logits(test.images)).softmax(dim=1).numpy()
    calibration = found["calibration"]
    assert calibration["brier"] == pytest.approx(((probabilities - truth) ** 2).sum() / 36)
    assert calibration["brier_uncalibrated"] == pytest.approx(((raw - truth) ** 2).sum() / 36)
    assert calibration["ece"] < calibration["ece_uncalibrated"]
    assert read_evaluation(Store(workspace.evaluation)).results[0].calibration == calibration


def test_a_decision_is_fitted_again_without_training(workspace, monkeypatch):
    few = {"classifier": {"model": "test_resnet", "epochs": 1, "batch": 2}}
    config = PipelineConfig.from_mapping(CONFIG.to_mapping() | few)
    train_classifiers(config, workspace)
    store = Store(f"{workspace.classifiers}/real-seed0")
    first = Classifier.load(store)
    assert first.decision.config == DecisionConfig() and first.decision.threshold is None
    decision = DecisionConfig(rule="specificity", level=0.5)
    Store(workspace.classifiers).delete(CLASSIFIERS)  # as `gemix pipeline --redo` does
    monkeypatch.setattr("gemix.steps.runtime.classifier_training.train", None)
    train_classifiers(dataclasses.replace(config, decision=decision), workspace)
    again = Classifier.load(store)
    assert again.checksum == first.checksum
    assert again.decision.config == decision and again.decision.threshold is not None
    assert again.decision.temperature == pytest.approx(first.decision.temperature)


def test_a_decision_is_fitted_again_where_another_class_is_healthy(workspace, monkeypatch):
    few = {"classifier": {"model": "test_resnet", "epochs": 1, "batch": 2}}
    rule = {"decision": {"rule": "specificity", "level": 0.5}}
    config = PipelineConfig.from_mapping(CONFIG.to_mapping() | few | rule)
    train_classifiers(config, workspace)
    store = Store(f"{workspace.classifiers}/real-seed0")
    first = Classifier.load(store)
    assert first.decision.normal == CLASSES.index("Normal cases")
    Store(workspace.classifiers).delete(CLASSIFIERS)
    monkeypatch.setattr("gemix.steps.runtime.classifier_training.train", None)
    data = dataclasses.replace(config.data, normal_class="benign")
    train_classifiers(dataclasses.replace(config, data=data), workspace)
    again, val = Classifier.load(store), read_images([workspace.data], "val")
    logits = again.logits(val.images)
    expected = Decision.fit(
        logits, val.labels, val.groups, CLASSES.index("benign"), config.decision
    )
    assert again.checksum == first.checksum and again.decision.normal == 0
    assert again.decision.threshold == pytest.approx(expected.threshold)
    assert again.decision.threshold != first.decision.threshold


def test_no_image_is_in_the_files_of_the_registered_model(workspace):
    Store(workspace.classifiers).write_json(CLASSIFIERS, [write_classifier(workspace, 0, 0.9)])
    assert evaluate(CONFIG, workspace)["registered_model"]["version"] == "1"
    (folder,) = (path.parent for path in Path(workspace.workdir).rglob("MLmodel"))
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    files += [b"".join(data.split()) for data in files]

    def is_there(image: np.ndarray) -> bool:
        row = image[0, 0].tolist()
        forms = (
            image.tobytes(),
            bytes(row),
            ",".join(map(str, row)).encode(),
            base64.b64encode(image),
        )
        return any(form in data for form in forms for data in files)

    assert is_there(mlflow.pyfunc.load_model(str(folder)).input_example[0])
    for split in ("train", "val", "test"):
        assert not any(map(is_there, read_images([workspace.data], split).images))


def test_a_rule_that_needs_more_patients_is_refused_before_training(workspace):
    decision = DecisionConfig(rule="sensitivity", level=0.99)
    with pytest.raises(DataError, match=r"decision\.level=0\.99 needs 99 diseased patients"):
        train_classifiers(dataclasses.replace(CONFIG, decision=decision), workspace)


def write_planted(workspace: Workspace, methods: dict[str, tuple[tuple[int, ...], float]]) -> None:
    """Classifiers of chosen answers and validation scores; 5 test patients of each pattern."""
    pairs = [(pattern, pattern // 4) for pattern in range(12)]
    write_set(workspace.data, {"train": pairs, "val": pairs, "test": pairs * 5})
    rows = []
    for name, (answers, val_score) in methods.items():
        method, seed = name.split("-seed")
        classifier = planted(
            answers, method=method, seed=int(seed), score=val_score, training_digest="0" * 64
        )
        classifier.save(Store(f"{workspace.classifiers}/{name}"))
        rows.append({"name": name, "method": method, "seed": int(seed), **classifier.validation})
    Store(workspace.classifiers).write_json(CLASSIFIERS, rows)


RIGHT = (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2)
WRONG_ONCE = (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 0)


def test_a_best_that_is_below_real_only_on_the_test_set_is_never_silent(
    tmp_path, caplog, capsys, monkeypatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = Workspace.at(tmp_path)
    write_planted(workspace, {"real-seed0": (RIGHT, 0.6), "softmax-seed0": (WRONG_ONCE, 0.9)})
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.to_yaml())
    monkeypatch.setattr("jobs.evaluate.RayExecutor", LocalExecutor)
    assert cli.main(["evaluate", "-c", str(file), "-w", workspace.workdir]) == 0
    found = read_evaluation(Store(workspace.evaluation))
    below = found.below_real
    assert (found.best, below.classifier, below.real_macro_f2) == ("softmax", "softmax-seed0", 1.0)
    # F2 of cancer 5 TP / (5 TP + 4 FN + FP) = 75 / 95, of normal 100 / 105
    expected = (100 / 105 + 1 + 75 / 95) / 3
    assert below.macro_f2 == below.method_macro_f2 == pytest.approx(expected)
    printed = capsys.readouterr()
    for text in (caplog.text, printed.out):
        assert "softmax-seed0 is the best on validation" in text
        assert f"macro-F2 is {expected:.3f}" in text and "alone 1.000" in text
        assert "gemix promote decides" in text
    assert found.registered_model is not None  # latest-best stays what it is


@pytest.mark.parametrize(
    ("methods", "is_below"),
    [
        ({"real-seed0": (WRONG_ONCE, 0.6), "softmax-seed0": (RIGHT, 0.9)}, False),
        ({"real-seed0": (WRONG_ONCE, 0.9), "softmax-seed0": (RIGHT, 0.6)}, False),  # real is best
        # a lucky training of a method that is worse on average
        (
            {
                "real-seed0": (WRONG_ONCE, 0.5),
                "real-seed1": (WRONG_ONCE, 0.5),
                "softmax-seed0": (RIGHT, 0.9),
                "softmax-seed1": ((0,) * 12, 0.5),
            },
            True,
        ),
    ],
)
def test_when_the_best_counts_as_below_real_only(tmp_path, monkeypatch, methods, is_below):
    monkeypatch.setattr("gemix.tracking.model_registry.register", lambda *_: "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = Workspace.at(tmp_path)
    write_planted(workspace, methods)
    assert (evaluate(CONFIG, workspace)["below_real"] is not None) == is_below


def test_another_sites_teacher_is_scored_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("gemix.tracking.model_registry.register", lambda *_: "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = Workspace.at(tmp_path)
    write_planted(workspace, {"real-seed0": (RIGHT, 0.6)})
    url = f"{workspace.workdir}/shared/teacher"
    write_teacher(Store(url), planted(WRONG_ONCE, method="teacher", training_digest="0" * 64))
    write_withheld_provenance(Store(url), "the teacher")
    config = dataclasses.replace(
        CONFIG, synthesis=dataclasses.replace(CONFIG.synthesis, teacher=url)
    )
    evaluate(config, workspace)
    teacher = read_evaluation(Store(workspace.evaluation)).teacher
    assert teacher.macro_f2 == pytest.approx((100 / 105 + 1 + 75 / 95) / 3)
    assert teacher.fnr == pytest.approx(1 / 12)  # one pattern of twelve
    low, high = teacher.intervals["fnr"]
    assert low < 1 / 12 < high

    write_provenance(Store(url), real_splits(workspace, "test"), [])
    with pytest.raises(DataError, match="the teacher"):
        evaluate(config, workspace, overwrite=True)
