"""Class weights by name: the numbers that they stand for, and what cannot be resolved."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gemix.config import PipelineConfig, load
from gemix.core.errors import CheckpointError, DataError
from gemix.data.leakage.provenance import write_provenance
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.labels import LabelConfig
from gemix.labels.config import WeightsName
from gemix.steps.pipeline import run_pipeline
from gemix.steps.runtime.overlap import real_splits
from gemix.steps.synthesize import synthesize
from gemix.steps.train_classifier import train_classifiers
from gemix.synthesis.class_weights import class_shares, resolve_class_weights
from tests.steps.untrained_networks import (
    CLASSES,
    TRAIN,
    write_classifier,
    write_real,
    write_workspace,
)

CONFIG = PipelineConfig.from_mapping(
    {
        "synthesis": {"methods": ["onehot"], "count": 300},
        "classifier": {"model": "test_resnet", "epochs": 1, "seeds": 1, "batch": 6},
        "compute": {"cpus_per_worker": 1, "workers": 0},
    }
)


@pytest.fixture
def real(tmp_path) -> Manifest:
    write_real(str(tmp_path / "real"))
    return Manifest.load(Store(tmp_path / "real"))


@pytest.fixture
def with_generator(tmp_path) -> Workspace:
    return write_workspace(tmp_path / "work")


def shares(labels: LabelConfig, real: Manifest) -> list[float]:
    return list(class_shares(resolve_class_weights(labels, real), real.classes).values())


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (None, [1 / 3, 1 / 3, 1 / 3]),
        ("uniform", [1 / 3, 1 / 3, 1 / 3]),
        ("real", [12 / 18, 4 / 18, 2 / 18]),
        ("inverse_frequency", [1 / 10, 3 / 10, 6 / 10]),
        ((2, 1, 1), [0.5, 0.25, 0.25]),
    ],
)
def test_weights_by_name_are_the_shares_of_the_training_split(real, weights, expected):
    assert shares(LabelConfig(class_weights=weights), real) == pytest.approx(expected)


def test_uniform_by_name_draws_the_same_labels_as_null(real):
    assert resolve_class_weights(LabelConfig(class_weights="uniform"), real) == LabelConfig()


def inverse_recall(url: str) -> LabelConfig:
    return LabelConfig(class_weights="inverse_recall", recall_of=url)


def test_inverse_recall_is_of_the_classifiers_validation_images(real, tmp_path):
    # recalls of 0.9, 0.3 and 0.45
    confusion = ((90, 5, 5), (70, 30, 0), (10, 1, 9))
    url = write_classifier(str(tmp_path / "c"), confusion)
    odds = np.array([1 / 0.9, 1 / 0.3, 1 / 0.45])
    assert shares(inverse_recall(url), real) == pytest.approx(odds / odds.sum())


def test_a_recall_of_zero_counts_as_three_in_n(real, tmp_path):
    confusion = ((100, 0, 0), (200, 0, 0), (2, 0, 0))
    url = write_classifier(str(tmp_path / "c"), confusion)
    weights = resolve_class_weights(inverse_recall(url), real).class_weights
    assert weights == pytest.approx((1, 200 / 3, 1))  # two images say nothing about a recall


def test_classes_are_matched_by_name(real, tmp_path):
    confusion = ((5, 5, 0), (0, 10, 0), (0, 0, 10))
    url = write_classifier(str(tmp_path / "c"), confusion, ("normal", "benign", "malignant"))
    assert resolve_class_weights(inverse_recall(url), real).class_weights == (1, 1, 2)


def test_what_has_no_weight_is_refused(real, tmp_path):
    with pytest.raises(DataError, match="2 weights for 3 classes"):
        resolve_class_weights(LabelConfig(class_weights=(1, 2)), real)
    write_real(str(tmp_path / "rare"), (12, 0, 2))
    rare = Manifest.load(Store(tmp_path / "rare"))
    assert shares(LabelConfig(class_weights="real"), rare)[1] == 0
    with pytest.raises(DataError, match=r"no training images of class malignant.*as numbers"):
        resolve_class_weights(LabelConfig(class_weights="inverse_frequency"), rare)


@pytest.mark.parametrize(
    ("confusion", "classes", "words"),
    [
        (((5, 0), (0, 5)), ("benign", "malignant"), r"the data have \['benign', 'malignant', 'nor"),
        (((5, 0, 0), (0, 5, 0), (0, 0, 0)), CLASSES, "no validation images .* of class normal"),
        (None, CLASSES, "recorded no recall of each class; train it again"),
    ],
)
def test_a_classifier_that_does_not_tell_the_recalls_is_refused(
    real, tmp_path, confusion, classes, words
):
    url = write_classifier(str(tmp_path / "c"), confusion, classes)
    with pytest.raises(DataError, match=words):
        resolve_class_weights(inverse_recall(url), real)


def test_a_directory_without_a_classifier_is_refused_before_the_first_step(real, tmp_path):
    url = str(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"labels\.recall_of: .*no finished classifier"):
        resolve_class_weights(inverse_recall(url), real)
    words = ["labels.class_weights=inverse_recall", f"labels.recall_of={url}"]
    with pytest.raises(CheckpointError, match=r"labels\.recall_of"):
        run_pipeline(load("demo", words), Workspace.at(tmp_path / "work"))
    assert not Store(tmp_path / "work").list(recursive=True)


def with_labels(**labels) -> PipelineConfig:
    return dataclasses.replace(CONFIG, labels=LabelConfig(**labels))


def test_a_set_is_made_with_the_weights_and_records_setting_and_numbers(with_generator, tmp_path):
    manifest = synthesize(with_labels(class_weights="real"), with_generator)["onehot"]
    expected = np.array(TRAIN) / sum(TRAIN)
    drawn = np.bincount(read_images([with_generator.synthetic("onehot")], "train").labels) / 300
    np.testing.assert_allclose(drawn, expected, atol=0.08)
    assert Store(with_generator.synthetic("onehot")).exists("labels.svg")
    assert manifest.origin["labels"]["class_weights"] == "real"
    assert manifest.origin["class_weights"] == pytest.approx(
        dict(zip(CLASSES, expected, strict=True))
    )


def test_the_recall_of_a_trained_classifier_is_used(with_generator):
    """With a classifier of the same data, in the work directory itself."""
    train_classifiers(CONFIG, with_generator)
    url = f"{with_generator.classifiers}/real-seed0"
    config = with_labels(class_weights="inverse_recall", recall_of=url)
    manifest = synthesize(config, with_generator)["onehot"]
    # one validation image a class, which is too few to prefer a class
    assert set(manifest.origin["class_weights"].values()) == {1 / 3}
    assert manifest.origin["labels"]["recall_of"] == url


def test_the_recall_of_test_images_is_refused(with_generator, tmp_path):
    url = write_classifier(str(tmp_path / "other" / "real-seed0"), ((9, 0, 0),) * 3)
    write_provenance(Store(tmp_path / "other"), real_splits(with_generator, "test"))
    config = with_labels(class_weights="inverse_recall", recall_of=url)
    with pytest.raises(DataError, match=r"classifier of labels\.recall_of.*share 3 "):
        synthesize(config, with_generator)
    assert not Store(with_generator.synthetic("onehot")).list()


def test_names_of_weights_are_those_that_are_resolved(real):
    for name in WeightsName.__args__[:-1]:
        resolved = resolve_class_weights(LabelConfig(class_weights=name), real).class_weights
        assert not isinstance(resolved, str)
