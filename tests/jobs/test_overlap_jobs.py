"""No job learns from, or tests on, what the other side has, unless it is told to."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from gemix.config import PipelineConfig
from gemix.core.errors import DataError
from gemix.data.leakage.overlap import TAG, Split
from gemix.data.leakage.provenance import PROVENANCE, Provenance, write_provenance
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.data.shards.schema import to_columns, write_shard
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.evaluate import EVALUATION, evaluate
from gemix.steps.synthesize import synthesize
from gemix.steps.train_classifier import CLASSIFIERS, train_classifiers
from gemix.steps.train_gan import PRETRAINING, train_gan

CLASSES = ("benign", "normal")
REMEDY = r"gemix check .*data\.allow_overlap=true"


def images(seed, count=8):
    """Dark and bright ones in turn."""
    rng, labels = np.random.default_rng(seed), np.arange(count) % 2
    pixels = rng.normal(80 + 60 * labels[:, None, None, None], 15, size=(count, 1, 16, 16))
    return pixels.clip(0, 255).astype(np.uint8)


def write_set(url: str, kind: str = "real", **splits) -> None:
    """Of each split (images, prefix of the groups)."""
    store, entries = Store(url), []
    for split, (pixels, prefix) in splits.items():
        labels = np.arange(len(pixels)) % 2
        columns = to_columns(
            pixels,
            np.eye(2)[labels],
            class_index=labels,
            patients=[f"{prefix}-{row // 2}" for row in range(len(pixels))],
            sources=[f"{split}/{row}.png" for row in range(len(pixels))],
        )
        entries.append(write_shard(store, f"{split}-00000.parquet", columns, split))
    Manifest.of(entries, kind=kind, classes=CLASSES, resolution=16, channels=1).save(store)


def allowing(config: PipelineConfig) -> PipelineConfig:
    data = dataclasses.replace(config.data, allow_overlap=True)
    return dataclasses.replace(config, data=data)


@pytest.fixture(scope="module")
def config() -> PipelineConfig:
    return PipelineConfig.from_mapping(
        {
            "synthesis": {"methods": ["softmax"]},
            "classifier": {"model": "test_resnet", "epochs": 1, "batch": 8, "lr": 1e-3},
            "compute": {"workers": 0, "cpus_per_worker": 1},
        }
    )


@pytest.fixture
def clean(tmp_path) -> Workspace:
    workspace = Workspace.at(tmp_path)
    splits = {"train": (images(1), "a"), "val": (images(2), "b"), "test": (images(3), "c")}
    write_set(workspace.data, **splits)
    return workspace


def prepared_with(tmp_path, split, pixels, prefix) -> Split:
    """The split of another set, of these images."""
    url = f"{tmp_path}/other-{prefix}"
    write_set(url, **{split: (pixels, prefix)})
    return Split(Store(url), split)


@pytest.mark.parametrize("job", [train_gan, train_classifiers])
@pytest.mark.parametrize("held_out", ["val", "test"])
def test_training_on_what_is_held_out_is_refused(config, tmp_path, job, held_out):
    workspace = Workspace.at(tmp_path)
    splits = {"train": (images(1), "a"), "val": (images(2), "b"), "test": (images(3), "c")}
    write_set(workspace.data, **splits | {held_out: (images(4), "a")})
    with pytest.raises(DataError, match=f"{held_out} split.*share 4 groups.*{REMEDY}"):
        job(config, workspace)
    assert Store(workspace.workdir).list() == []


def test_a_classifier_chosen_by_test_images_is_refused(config, tmp_path):
    workspace = Workspace.at(tmp_path)
    splits = {"train": (images(1), "a"), "val": (images(2), "b"), "test": (images(2), "c")}
    write_set(workspace.data, **splits)
    with pytest.raises(
        DataError, match=rf"the val split.*the test split.*share 8 images.*{REMEDY}"
    ):
        train_classifiers(config, workspace)


def test_a_gan_that_starts_from_one_that_saw_the_test_set_is_refused(config, clean, tmp_path):
    network = Store(tmp_path / "pretrained")
    write_provenance(network, [prepared_with(tmp_path, "train", images(3)[2:5], "elsewhere")])
    gan = dataclasses.replace(config.gan, init_from=network.url)
    with pytest.raises(DataError, match=rf"of the network in .*pretrained.*3 images.*{REMEDY}"):
        train_gan(dataclasses.replace(config, gan=gan), clean)


def test_images_of_a_generator_that_saw_the_test_set_are_refused(config, clean, tmp_path):
    url = clean.synthetic("softmax")
    write_set(url, kind="synthetic", train=(images(5), "synthetic"))
    write_provenance(Store(url), [prepared_with(tmp_path, "train", images(6), "c")])
    with pytest.raises(DataError, match=rf"generator of the softmax.*share 4 groups.*{REMEDY}"):
        train_classifiers(config, clean)


def test_a_test_set_that_the_classifiers_saw_is_refused(config, clean, tmp_path):
    store = Store(clean.classifiers)
    store.write_json(CLASSIFIERS, [])
    write_provenance(store, [prepared_with(tmp_path, "val", images(3)[:1], "elsewhere")])
    with pytest.raises(DataError, match=rf"of the classifiers in.*share 1 images.*{REMEDY}"):
        evaluate(config, clean)
    assert not Store(clean.evaluation).list()


@pytest.mark.slow
def test_what_is_allowed_is_told_everywhere(config, tmp_path, caplog):
    workspace = Workspace.at(tmp_path)
    test = images(3, 12)
    test[4] = images(1)[2]
    write_set(workspace.data, train=(images(1), "a"), val=(images(2), "a"), test=(test, "a"))
    write_set(workspace.synthetic("softmax"), kind="synthetic", train=(images(5), "synthetic"))
    train_classifiers(allowing(config), workspace)
    with pytest.raises(DataError, match=r"share 4 groups .* and 1 images"):
        evaluate(config, workspace)
    found = evaluate(allowing(config), workspace)["overlap"]
    assert ("gemix.evaluate", logging.WARNING) in [r[:2] for r in caplog.record_tuples]
    assert Store(workspace.evaluation).read_json(EVALUATION)["overlap"] == found
    (shared,) = found["shared"]
    assert (shared["groups"], shared["images"]) == (4, 1)
    assert shared["examples"]["images"] == ["test/4.png"]
    (unknown,) = found["unknown"]
    assert "the generator of the softmax images" in unknown  # nobody knows whose they are
    client = MlflowClient(f"sqlite:///{workspace.workdir}/mlflow.db")
    experiment = client.get_experiment_by_name("gemix").experiment_id
    tags = [run.data.tags for run in client.search_runs([experiment])]
    assert len(tags) == 2 and all(tag[TAG].startswith("allowed: ") for tag in tags)


@pytest.mark.slow
def test_what_a_gan_learned_from_goes_with_its_images(tiny_config, prepared):
    gan = dataclasses.replace(tiny_config.gan, pretrain_kimg=0.016)
    train_gan(dataclasses.replace(tiny_config, gan=gan), prepared)
    train = read_images([prepared.data], "train")
    seen = pq.read_table(Store(prepared.gan).path(PROVENANCE))
    assert sorted(seen["group"].to_pylist()) == sorted(train.groups)
    assert set(seen["dataset"].to_pylist()) == {train.digest}
    assert pq.read_table(Store(f"{prepared.gan}/{PRETRAINING}").path(PROVENANCE)).equals(seen)
    synthesize(tiny_config, prepared, methods=["onehot"])
    images_of_it = Store(prepared.synthetic("onehot"))
    assert pq.read_table(images_of_it.path(PROVENANCE)).equals(seen)
    assert Provenance(images_of_it, "the generator").unknown == ()
    # as if the data had been split anew since
    gan = Store(prepared.gan)
    write_provenance(gan, [Split(Store(prepared.data), "test")])
    with pytest.raises(DataError, match=rf"of the generator in.*the test split.*{REMEDY}"):
        synthesize(tiny_config, prepared, methods=["softmax"])
    assert not Store(prepared.synthetic("softmax")).list()
