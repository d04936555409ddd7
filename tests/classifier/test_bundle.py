"""A saved classifier: what comes back, what is refused, what MLflow gives."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest

from gemix.classifier.bundle import MODEL, WEIGHTS, Classifier, is_finished
from gemix.classifier.train import train
from gemix.config import PipelineConfig
from gemix.core.errors import CheckpointError, ConfigError, DataError
from gemix.evaluation.classification.rates import score
from gemix.io.storage import Store
from gemix.tracking.mlflow_run import start_run
from gemix.tracking.model_registry import ALIAS, register
from gemix.tracking.registrable import NotRegistrableError, check_registrable


@pytest.fixture(scope="module")
def classifier(image_set, quick) -> Classifier:
    training = image_set("train", 60)
    config = dataclasses.replace(quick, epochs=1)
    found = train(training, image_set("val", 12, seed=1), config, lambda *_: {"macro_f2": 0.5})
    return Classifier.of(
        found,
        classes=training.classes,
        method="softmax",
        config=config,
        training_digest=training.digest,
    )


@pytest.fixture(scope="module")
def images(image_set) -> np.ndarray:
    return image_set("test", 70, seed=2).images


def test_it_comes_back_as_it_was(classifier, images, tmp_path):
    classifier.save(Store(tmp_path))
    loaded = Classifier.load(Store(tmp_path))
    np.testing.assert_array_equal(loaded.predict(images), classifier.predict(images))
    for field in ("classes", "method", "config", "training_digest", "normalization", "validation"):
        assert getattr(loaded, field) == getattr(classifier, field)
    assert json.loads((tmp_path / MODEL).read_text())["history"] == list(classifier.history)


def test_the_confusion_of_the_validation_images_comes_back(classifier, tmp_path):
    store, confusion = Store(tmp_path), ((4, 0, 0), (1, 3, 0), (0, 2, 2))
    dataclasses.replace(classifier, validation_confusion=confusion).save(store)
    assert Classifier.load(store).validation_confusion == confusion
    tree = store.read_json(MODEL)
    for bad in ([[1, 2], [3, 4]], [[4, 0, 0], [1, 3, 0], [0, 2, -2]], 7):
        store.write_json(MODEL, tree | {"validation_confusion": bad})
        with pytest.raises(CheckpointError, match="damaged"):
            Classifier.load(store)
    del tree["validation_confusion"]  # as an earlier version wrote it
    store.write_json(MODEL, tree)
    assert Classifier.load(store).validation_confusion is None


def test_probabilities_are_probabilities_of_each_image_alone(classifier, images):
    together = classifier.predict(images)
    assert together.dtype == np.float32 and together.shape == (70, 3)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(classifier.predict(images[5:6])[0], together[5], atol=1e-5)
    assert classifier.predict(images[:0]).shape == (0, 3)


def test_images_of_another_shape_are_refused(classifier, images):
    with pytest.raises(DataError, match=r"takes \[N, 1, 32, 32\]"):
        classifier.predict(images[..., :16])
    with pytest.raises(DataError, match=r"shape \[1, 32, 32\]"):
        classifier.predict(images[0])


def test_finished_means_the_same_settings_and_images(classifier, tmp_path):
    made_of = {
        "method": "softmax",
        "config": classifier.config,
        "training_digest": classifier.training_digest,
    }
    store = Store(tmp_path)
    assert not is_finished(store, **made_of)
    classifier.save(store)
    assert is_finished(store, **made_of)
    other = dataclasses.replace(classifier.config, lr=1e-4)
    assert not is_finished(store, **made_of | {"config": other})
    assert not is_finished(store, **made_of | {"training_digest": "0"})


def test_pretrained_weights_count_by_content_and_their_folder_is_not_written(classifier, tmp_path):
    store, first, moved = Store(tmp_path / "a"), tmp_path / "ward 7", tmp_path / "elsewhere"
    for folder in (first, moved):
        folder.mkdir()
        (folder / "start.safetensors").write_bytes(b"weights")
    config = dataclasses.replace(classifier.config, weights=str(first / "start.safetensors"))
    made_of = {"method": "softmax", "training_digest": classifier.training_digest}
    sha256 = hashlib.sha256(b"weights").hexdigest()
    dataclasses.replace(classifier, config=config, weights_sha256=sha256).save(store)
    assert "ward 7" not in store.read_bytes(MODEL).decode()
    loaded = Classifier.load(store)
    assert (loaded.config.weights, loaded.weights_sha256) == ("start.safetensors", sha256)
    elsewhere = dataclasses.replace(config, weights=str(moved / "start.safetensors"))
    for same in (config, elsewhere):
        assert is_finished(store, config=same, **made_of)
    assert not is_finished(store, config=classifier.config, **made_of)
    (moved / "start.safetensors").write_bytes(b"others")
    assert not is_finished(store, config=elsewhere, **made_of)
    (moved / "start.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"start\.safetensors: cannot be read \(No such file"):
        is_finished(store, config=elsewhere, **made_of)
    # as earlier versions wrote it
    tree = store.read_json(MODEL)
    tree["config"]["weights"], tree["weights_sha256"] = config.weights, None
    store.write_json(MODEL, tree)
    assert is_finished(store, config=config, **made_of)
    Classifier.load(store).save(store)
    assert "ward 7" not in store.read_bytes(MODEL).decode()
    assert is_finished(store, config=config, **made_of)


def test_damage_is_named(classifier, tmp_path):
    store = Store(tmp_path / "a")
    with pytest.raises(CheckpointError, match="run gemix train-classifier"):
        Classifier.load(store)
    classifier.save(store)
    store.write_bytes(WEIGHTS, store.read_bytes(WEIGHTS)[:-10])
    with pytest.raises(CheckpointError, match="damaged"):
        Classifier.load(store)
    tree = store.read_json(MODEL)
    tree["architecture"]["model"] = "test_resnet.r160_in1k"
    tree["architecture"]["classes"] = 5
    classifier.save(store)
    store.write_json(MODEL, tree)
    with pytest.raises(CheckpointError, match="do not fit"):
        Classifier.load(store).predict(np.zeros((1, 1, 32, 32), np.uint8))


def with_nan(classifier: Classifier) -> Classifier:
    state = {name: value.clone() for name, value in classifier.state.items()}
    name = next(name for name, value in state.items() if value.is_floating_point())
    state[name].view(-1)[0] = float("nan")
    return dataclasses.replace(classifier, state=state)


def test_weights_that_are_not_finite_are_refused(classifier, images, tmp_path):
    broken = with_nan(classifier)
    broken.save(Store(tmp_path))
    with pytest.raises(CheckpointError, match=r"1 of \d+ weights are not finite.*--overwrite"):
        Classifier.load(Store(tmp_path))
    with pytest.raises(CheckpointError, match=r"outputs are not finite for 70 of 70 images"):
        broken.predict(images)


def test_a_newer_format_is_named(classifier, tmp_path):
    store = Store(tmp_path)
    classifier.save(store)
    store.write_json(MODEL, store.read_json(MODEL) | {"version": 2})
    with pytest.raises(CheckpointError, match=r"format 2.*update gemix"):
        Classifier.load(store)


@pytest.mark.parametrize("name", [MODEL, WEIGHTS])
@pytest.mark.parametrize("part", [0, 0.5])
def test_a_truncated_file_is_one_message_with_a_remedy(classifier, tmp_path, name, part):
    store = Store(tmp_path)
    classifier.save(store)
    data = store.read_bytes(name)
    store.write_bytes(name, data[: int(part * len(data))])
    with pytest.raises(CheckpointError, match=r"damaged classifier.*--overwrite") as caught:
        Classifier.load(store)
    assert "\n" not in str(caught.value)


def test_a_setting_that_a_later_version_added_trains_nothing_again(classifier, tmp_path):
    store = Store(tmp_path)
    classifier.save(store)
    tree = store.read_json(MODEL)
    del tree["config"]["horizontal_flip"]
    store.write_json(MODEL, tree)
    assert is_finished(
        store,
        method="softmax",
        config=classifier.config,
        training_digest=classifier.training_digest,
    )


def test_a_constant_answer_may_be_registered(classifier):
    for labels in ([0, 1, 2], [0, 0, 0, 0, 1, 2]):
        for answer in range(3):
            rates = score(np.array(labels), np.full(len(labels), answer), 3)
            validation = {f"val_{name}": value for name, value in rates.items()}
            check_registrable(dataclasses.replace(classifier, validation=validation))


@pytest.mark.parametrize(("macro_f2", "recall"), [(float("nan"), 0.9), (0.23, 0.3), (0.0, 0.0)])
def test_a_classifier_below_chance_is_not_registered(classifier, macro_f2, recall):
    check_registrable(classifier)
    validation = {"val_macro_f2": macro_f2, "val_macro_recall": recall}
    with pytest.raises(NotRegistrableError, match=r"below chance \(0\.238\)"):
        check_registrable(dataclasses.replace(classifier, validation=validation))
    with pytest.raises(NotRegistrableError, match="weights are not finite"):
        check_registrable(with_nan(classifier))


@pytest.fixture(scope="module")
def registered(classifier, tmp_path_factory) -> tuple[str, str, Path]:
    """Tracking URI, version and folder of a registry with two versions."""
    workdir = tmp_path_factory.mktemp("registry")
    with start_run(PipelineConfig(), str(workdir), "evaluate") as run:
        with pytest.raises(NotRegistrableError):
            register(with_nan(classifier), run, "ct", {})
        register(classifier, run, "ct", {"method": "first"})
        version = register(classifier, run, "ct", {"method": "softmax"})
    return run.tracking_uri, version, workdir


def test_the_registered_model_gives_the_same_predictions(
    registered, classifier, images, monkeypatch
):
    uri, version, _ = registered
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    model = mlflow.pyfunc.load_model(f"models:/ct/{version}")
    by_alias = mlflow.pyfunc.load_model(f"models:/ct@{ALIAS}")
    expected = classifier.predict(images)
    np.testing.assert_array_equal(model.predict(images), expected)
    np.testing.assert_array_equal(by_alias.predict(images[:1]), classifier.predict(images[:1]))
    signature = model.metadata.signature
    assert signature.inputs.inputs[0].shape == (-1, 1, 32, 32)
    assert signature.outputs.inputs[0].shape == (-1, 3)
    assert model.metadata.saved_input_example_info["type"] == "ndarray"


def test_the_first_version_loads_after_its_work_directory_was_moved(
    registered, classifier, images, tmp_path, monkeypatch
):
    _, _, workdir = registered
    moved = tmp_path / "moved"
    shutil.copytree(workdir, moved)
    with start_run(PipelineConfig(), str(moved), "evaluate") as run:
        pass
    monkeypatch.setenv("MLFLOW_TRACKING_URI", run.tracking_uri)
    source = mlflow.MlflowClient(run.tracking_uri).get_model_version("ct", "1").source
    assert source.startswith(moved.as_uri())
    model = mlflow.pyfunc.load_model("models:/ct/1")
    np.testing.assert_array_equal(model.predict(images), classifier.predict(images))


def test_versions_count_up_and_carry_tags(registered):
    uri, version, _ = registered
    client = mlflow.MlflowClient(uri)
    assert version == "2"
    tags = client.get_model_version("ct", version).tags
    assert tags == {"method": "softmax"}
    assert str(client.get_model_version_by_alias("ct", ALIAS).version) == version


def test_the_registered_model_holds_no_pickle_and_brings_its_code(registered):
    _, _, workdir = registered
    files = [path for path in (workdir / "mlartifacts").rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".pkl", ".pt", ".pth", ".pickle")]
    (code, _) = (path for path in (workdir / "mlartifacts").rglob("code") if path.is_dir())
    program = "import gemix.classifier.bundle as b; print(b.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=code, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(code))
