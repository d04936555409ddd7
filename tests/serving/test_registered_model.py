"""The registered model: what MLflow loads and serves, without gemix, Ray or pickles."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from gemix.classifier import grad_cam
from gemix.config import PipelineConfig
from gemix.core.errors import TrackingConfigError
from gemix.tracking.mlflow_run import start_run
from gemix.tracking.model_registry import ALIAS, load_registered, register
from tests.data.dicom_files import CANARY, assert_no_canary, write

SERVER = Path(__file__).with_name("model_server.py")
ZEROS = np.zeros((2, 1, 32, 32), np.uint8)


@pytest.fixture(scope="module")
def folders(png_set, dicom_set, tmp_path_factory) -> dict[str, Path]:
    """The folders of two registered models, of files and of arrays alone, and of the registry."""
    workdir = tmp_path_factory.mktemp("registry")
    windowed = png_set.classifier()  # of scans under one window
    settings = dict(windowed.preprocessing) | {"is_hounsfield": True}
    classifiers = {
        "scans": dataclasses.replace(windowed, preprocessing=settings),
        "arrays": dataclasses.replace(windowed, preprocessing=None),
    }
    found = {"workdir": workdir}
    with start_run(PipelineConfig(), str(workdir), "evaluate") as run:
        for name, classifier in classifiers.items():
            register(classifier, run, name, {})
            models = set(workdir.rglob("MLmodel")) - {path / "MLmodel" for path in found.values()}
            found[name] = models.pop().parent
    return found


@pytest.fixture(scope="module")
def model(folders) -> mlflow.pyfunc.PyFuncModel:
    return mlflow.pyfunc.load_model(str(folders["scans"]))


@pytest.fixture(scope="module")
def expected(model, png_set, dicom_set) -> np.ndarray:
    """Probabilities of a PNG and of a DICOM file, as gemix itself predicts them."""
    served = model.unwrap_python_model().scan_classifier
    values = np.array([png_set.files[0], dicom_set.files[1]], dtype=object)
    return served.predict(served.images(values))


def probabilities(answers: list[dict] | pd.DataFrame) -> np.ndarray:
    rows = answers.to_dict("records") if isinstance(answers, pd.DataFrame) else answers
    return np.array([list(row["probabilities"].values()) for row in rows])


def test_files_in_every_form_give_one_answer(model, expected, png_set, dicom_set):
    files = [png_set.files[0], dicom_set.files[1]]
    data = [file.read_bytes() for file in files]
    text = [base64.b64encode(one).decode() for one in data]
    for given in (
        np.array(files, dtype=object),
        np.array(data, dtype=object),
        np.array(text),
        {"image": np.array(text)},
        pd.DataFrame({"image": data, "id": [1, 2]}),
        pd.DataFrame({"image": text}),
    ):
        answers = model.predict(given)
        classes = png_set.manifest.classes
        assert list(answers["probabilities"][0]) == list(classes)
        assert list(answers["class"]) == [classes[label] for label in expected.argmax(axis=1)]
        np.testing.assert_allclose(probabilities(answers), expected, atol=1e-6)


def test_arrays_give_arrays(model, png_set):
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 32, 32), dtype=np.uint8)
    found = model.predict(images)
    np.testing.assert_array_equal(found, png_set.classifier().predict(images))
    assert found.dtype == np.float32


def test_the_signature_and_the_example(folders, model):
    assert [(one.name, one.type, one.shape) for one in model.metadata.get_input_schema()] == [
        ("image", np.dtype(object), (-1,))
    ]
    assert model.metadata.metadata["accepts"].startswith("uint8 arrays [N, 1, 32, 32]")
    assert model.metadata.metadata["preprocessing"]["windows"] == [[-500, 1400]]
    assert model.predict(model.input_example).shape == (2, 3)
    example = np.array(model.input_example["image"])  # ramps of grey
    assert (example.shape, example[0, 0, 0, 0], example[0, 0, 0, -1]) == ((2, 1, 32, 32), 0, 255)
    assert (example[1] == example[0, ..., ::-1]).all() and (np.diff(example[0]) > 0).all()
    old = mlflow.pyfunc.load_model(str(folders["arrays"]))
    assert old.metadata.get_input_schema().inputs[0].shape == (-1, 1, 32, 32)
    assert old.predict(ZEROS).shape == (2, 3)


def test_the_registry_gives_the_classifier_back(folders, png_set, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folders['workdir']}/mlflow.db")
    found = load_registered(f"models:/scans@{ALIAS}")
    assert found.checksum == png_set.classifier().checksum
    assert found.preprocessing["is_hounsfield"] is True
    with pytest.raises(TrackingConfigError, match="nobody"):
        load_registered("models:/scans@nobody")


def test_a_request_for_an_explanation_adds_a_picture_to_each_answer(model, folders, png_set):
    pytest.importorskip("captum")
    (parameter,) = model.metadata.get_params_schema()
    assert (parameter.name, parameter.default) == ("explain", False)
    files = np.array(list(png_set.files[:2]), dtype=object)
    served = model.unwrap_python_model().scan_classifier
    images = served.images(files)
    expected = served.explain(images, served.describe(served.predict(images)))
    plain = model.predict(files)
    assert list(plain.columns) == ["class", "probabilities"]
    of_arrays = mlflow.pyfunc.load_model(str(folders["arrays"]))
    for given, asked in ((files, model), (images, model), (images, of_arrays)):
        found = asked.predict(given, params={"explain": True})
        assert found.to_dict("records") == expected
        assert list(found["class"]) == list(plain["class"])
    with pytest.raises(MlflowException, match="explain"):
        model.predict(files, params={"explain": "yes"})


def test_an_error_names_the_image_and_holds_no_image(model, png_set):
    values = np.array([png_set.files[0], Path("Doe.dcm")], dtype=object)
    with pytest.raises(
        MlflowException, match="image 1 of 2: a path of a file that cannot"
    ) as caught:
        model.predict(values)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE" and "Doe" not in str(caught.value)


def test_the_folder_holds_no_pickle(folders):
    for folder in (folders["scans"], folders["arrays"]):
        names = [path.name for path in folder.rglob("*") if path.is_file()]
        assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]
        assert not [name for name in names if name.endswith(".pyc")]
        requirements = (folder / "requirements.txt").read_text().splitlines()
        packages = {line.partition("==")[0] for line in requirements}
        assert packages >= {"pydicom", "scipy", "torch"}
        assert ("captum" in packages) == grad_cam.is_installed()
        assert all("==" in line for line in requirements)


@pytest.fixture(scope="module")
def server(folders, tmp_path_factory) -> Iterator[tuple[str, dict]]:
    """The address of a process that serves the model, and how it was loaded."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    hidden = ("PYTHONPATH", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    with subprocess.Popen(
        [sys.executable, str(SERVER), str(folders["scans"]), str(port)],
        cwd=elsewhere,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=(elsewhere / "log").open("wb"),
        text=True,
    ) as process:
        try:
            line = process.stdout.readline()
            assert line, (elsewhere / "log").read_text()
            for _ in range(100):
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", json.loads(line)
        finally:
            process.kill()


@pytest.fixture
def post(server) -> Callable[[object], tuple[int, dict]]:
    """Posts JSON and returns the status and the answer."""

    def post(body: object) -> tuple[int, dict]:
        request = urllib.request.Request(
            f"{server[0]}/invocations",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    return post


def test_it_loads_without_gemix_ray_and_pickles(server, folders):
    loaded = server[1]
    assert loaded["before"] == []
    assert "gemix.serving.scan_classifier" in loaded["gemix"]
    assert all(file.startswith(str(folders["scans"])) for file in loaded["gemix"].values())


def test_http_takes_arrays_and_files(post, expected, png_set, dicom_set, model):
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32), dtype=np.uint8)
    text = [
        base64.b64encode(file.read_bytes()).decode()
        for file in (png_set.files[0], dicom_set.files[1])
    ]
    status, answer = post({"inputs": images.tolist()})
    assert status == 200, answer.get("stack_trace")
    np.testing.assert_allclose(answer["predictions"], model.predict(images), atol=1e-6)
    for body in (
        {"inputs": text},
        {"inputs": {"image": text}},
        {"instances": [{"image": one} for one in text]},
        {"dataframe_records": [{"image": one, "id": 7} for one in text]},
        {"dataframe_split": {"columns": ["image"], "data": [[one] for one in text]}},
    ):
        status, answer = post(body)
        assert status == 200, body.keys()
        assert answer["predictions"][0].keys() == {"class", "probabilities"}
        assert set(answer["predictions"][0]["probabilities"]) == set(png_set.manifest.classes)
        np.testing.assert_allclose(probabilities(answer["predictions"]), expected, atol=1e-6)
    for inputs in (text, images.tolist()):
        status, answer = post({"inputs": inputs, "params": {"explain": True}})
        if not grad_cam.is_installed():
            assert status == 400 and "captum is not installed" in answer["message"]
            continue
        assert status == 200, answer
        assert answer["predictions"][0].keys() == {"class", "probabilities", "grad_cam"}
        for row in answer["predictions"]:
            picture = Image.open(io.BytesIO(base64.b64decode(row["grad_cam"])))
            assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (32, 32))


def test_the_serving_example_is_a_request(post, folders):
    status, answer = post(json.loads((folders["scans"] / "serving_input_example.json").read_text()))
    assert status == 200 and np.shape(answer["predictions"]) == (2, 3)


def test_http_names_what_is_wrong_and_reads_no_file_of_the_server(post, png_set, tmp_path):
    good = base64.b64encode(png_set.files[0].read_bytes()).decode()
    named = write(tmp_path / "slice", is_planted=True, Modality="MR").read_bytes()
    for bad, reason in (
        (str(png_set.files[0]), "not base64"),
        (png_set.files[0].as_uri(), "not base64"),
        (base64.b64encode(b"no image").decode(), "no PNG, JPEG"),
        (base64.b64encode(named).decode(), "not CT; give axial CT slices"),
        ({"path": str(png_set.files[0])}, "give bytes"),
        (None, "give bytes"),
        (17, "give bytes"),
    ):
        status, answer = post({"inputs": [good, bad]})
        assert status == 400, bad
        assert "stack_trace" not in answer
        assert answer["message"].startswith("image 1 of 2: ") and reason in answer["message"]
        assert_no_canary(json.dumps(answer))
    for bad in ([[[300]]], [[0.5]], [["a"]], [], "text"):
        status, answer = post({"inputs": bad})
        assert (status, "Traceback" in str(answer)) == (400 if bad else 200, False), bad
    assert CANARY not in good
