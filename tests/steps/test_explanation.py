"""Pictures and maps of an evaluation: the images chosen, their patients, packages missing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gemix.config import PipelineConfig
from gemix.data.shards.reading import read_images
from gemix.io.explanation_record import (
    EXPLANATION_VIEW,
    read_explanation,
    read_projection,
)
from gemix.io.predictions import Predictions, read_predictions
from gemix.io.results import CLASSIFIERS
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.evaluate import evaluate
from gemix.steps.explanation import pictures
from gemix.steps.explanation.pictures import shown_rows
from tests.steps.planted_classifiers import SIDE, planted, write_set

CONFIG = PipelineConfig.from_mapping(
    {"compute": {"cpus_per_worker": 1, "workers": 0}, "synthesis": {"methods": ["onehot"]}}
)
# two patterns of cancer are taken for normal
ANSWERS = (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 0, 0)


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    monkeypatch.setattr("gemix.tracking.model_registry.register", lambda *_: "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = Workspace.at(tmp_path)
    pairs = [(pattern, pattern // 4) for pattern in range(12)]
    write_set(workspace.data, {"train": pairs * 2, "val": pairs, "test": pairs * 8})
    write_set(workspace.synthetic("onehot"), {"train": pairs}, kind="synthetic", seed=1)
    classifier = planted(ANSWERS, method="real", seed=0, score=0.9, training_digest="0" * 64)
    classifier.save(Store(f"{workspace.classifiers}/real-seed0"))
    row = {"name": "real-seed0", "method": "real", "seed": 0, **classifier.validation}
    Store(workspace.classifiers).write_json(CLASSIFIERS, [row])
    return workspace


def test_misses_and_hits_are_kept_with_maps_and_a_projection(workspace):
    pytest.importorskip("captum")
    pytest.importorskip("openTSNE")
    evaluate(CONFIG, workspace)
    store = Store(workspace.evaluation)
    found, test = read_explanation(store), read_images([workspace.data], "test")
    assert (found.classifier, found.tested, found.missed) == ("real-seed0", 96, 16)
    assert [(one.label, one.predicted) for one in found.images[:12]] == [(2, 0)] * 12
    assert [one.label for one in found.images[12:]] == [0, 0, 1, 1, 2, 2]
    assert (found.layer, found.cells) == ("layer2", (4, 4))
    assert found.missing_packages == () and found.no_maps is found.no_projection is None
    [predictions] = read_predictions(store)
    rows = shown_rows(predictions)
    with Image.open(io.BytesIO(store.read_bytes(EXPLANATION_VIEW))) as view:
        pixels = np.asarray(view)
    assert pixels.shape == (2 * SIDE, 18 * SIDE)
    np.testing.assert_array_equal(np.stack(np.hsplit(pixels[:SIDE], 18)), test.images[rows][:, 0])
    maps = np.stack(np.hsplit(pixels[SIDE:], 18))
    assert set(maps.max(axis=(1, 2)).tolist()) <= {0, 255} and maps.any()
    projection = read_projection(store)
    assert (projection.classifier, projection.method) == ("real-seed0", "onehot")
    sources = np.array(projection.source)
    assert {one: (sources == one).sum() for one in sources} == {
        "train": 24,
        "test": 96,
        "synthetic": 12,
    }
    text = store.read_bytes("explanation.json") + store.read_bytes("projection.json")
    assert not any(name.encode() in text for name in test.groups)


def test_without_the_packages_pictures_are_kept_alone(workspace, monkeypatch):
    monkeypatch.setattr(
        pictures, "OPTIONAL_PACKAGES", {"captum": lambda: False, "openTSNE": lambda: False}
    )
    monkeypatch.setattr("gemix.steps.explanation.projection.is_installed", lambda: False)
    evaluate(CONFIG, workspace)
    store = Store(workspace.evaluation)
    found = read_explanation(store)
    assert found.missing_packages == ("captum", "openTSNE")
    assert found.layer is found.no_maps is found.no_projection is None
    assert read_projection(store) is None
    with Image.open(io.BytesIO(store.read_bytes(EXPLANATION_VIEW))) as view:
        assert view.size == (18 * SIDE, SIDE)


def test_a_damaged_synthetic_set_does_not_cost_the_evaluation(workspace, caplog):
    pytest.importorskip("openTSNE")
    Store(workspace.synthetic("onehot")).write_bytes("train.parquet", b"PAR1")
    evaluate(CONFIG, workspace)
    found = read_explanation(Store(workspace.evaluation))
    assert "train.parquet" in found.no_projection and "without a t-SNE map" in caplog.text


def test_the_most_confident_of_each_patient_alone_is_shown():
    probabilities = np.array(
        [[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.05, 0.95]], np.float32
    )
    predictions = Predictions(
        method="real",
        seed=0,
        sources=tuple("abcde"),
        patients=("p", "p", "q", "r", "s"),
        labels=np.array([1, 1, 1, 1, 1]),
        predicted=probabilities.argmax(axis=1),
        probabilities=probabilities,
        uncalibrated=None,
    )
    assert shown_rows(predictions).tolist() == [0, 2, 4, 3]
