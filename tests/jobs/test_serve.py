"""The application of Ray Serve, on this machine."""

from __future__ import annotations

import base64
import concurrent.futures
import itertools
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
import ray

pytest.importorskip("ray.serve", reason="needs the extra serve", exc_type=ImportError)

from ray import serve

from gemix.classifier import grad_cam
from gemix.classifier.bundle import Classifier
from gemix.core.errors import ConfigError
from gemix.core.png import encode_png
from gemix.data.config import DataConfig
from gemix.data.preprocessing.preprocess import preprocess_settings
from gemix.io.storage import Store
from gemix.serving.scan_classifier import ScanClassifier
from jobs._runtime.ray_cluster import connect
from jobs.serve import application
from tests.steps.untrained_networks import write_classifier


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> str:
    """The directory of a classifier of PNG files."""
    url = write_classifier(str(tmp_path_factory.mktemp("classifier")), None)
    settings = preprocess_settings(DataConfig(resolution=16)) | {"is_hounsfield": False}
    tree = Store(url).read_json("model.json")
    Store(url).write_json("model.json", tree | {"preprocessing": settings})
    return url


@pytest.fixture(scope="module")
def address(classifier) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    connect()
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(application({"model": classifier}), name="gemix")
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


def ask(address: str, body: bytes | None) -> tuple[int, dict]:
    request = urllib.request.Request(f"{address}/invocations", body)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.slow
def test_it_answers_files_and_arrays_of_many_at_a_time(address, classifier):
    model = ScanClassifier(Classifier.load(Store(classifier)))
    rng = np.random.default_rng(0)
    files = [
        base64.b64encode(encode_png(rng.integers(0, 256, (40, 40, 1), dtype=np.uint8))).decode()
        for _ in range(20)
    ]
    images = model.images(np.array(files))
    expected = model.describe(model.predict(images))
    bodies = [json.dumps({"inputs": files[at : at + 2]}).encode() for at in range(0, 20, 2)]
    bodies.append(json.dumps({"inputs": images.tolist()}).encode())
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: ask(address, body), bodies))
    assert {status for status, _ in answers} == {200}
    *found, together = [answer["predictions"] for _, answer in answers]
    for given in (list(itertools.chain(*found)), together):
        assert [one["class"] for one in given] == [one["class"] for one in expected]
        for one, want in zip(given, expected, strict=True):
            assert one["probabilities"] == pytest.approx(want["probabilities"], abs=1e-5)
    for body, reason in (
        (b"{", "not JSON"),
        (b"{}", "not JSON with"),
        (b'{"inputs": ["/etc/hostname"]}', "image 0 of 1: text that is not base64"),
        (json.dumps({"inputs": [files[0], None]}).encode(), "image 1 of 2: a NoneType"),
        (b'{"inputs": [[[[300]]]]}', r"an array of shape [1, 1, 1, 1]"),
        (json.dumps({"inputs": files[:1], "params": {"explain": 1.5}}).encode(), '"params" of'),
    ):
        status, answer = ask(address, body)
        assert status == 400 and reason in answer["message"]
    explained = {"inputs": files[:2], "params": {"explain": True}}
    status, answer = ask(address, json.dumps(explained).encode())
    if grad_cam.is_installed():
        pngs = [base64.b64decode(one.pop("grad_cam")) for one in answer["predictions"]]
        assert [one["class"] for one in answer["predictions"]] == [r["class"] for r in expected[:2]]
        assert all(png.startswith(b"\x89PNG") for png in pngs)
    else:
        assert status == 400 and "captum is not installed" in answer["message"]
    assert ask(address, None)[0] == 405
    with urllib.request.urlopen(f"{address}/ping", timeout=10) as answer:
        assert answer.status == 200


def test_other_arguments_are_refused():
    with pytest.raises(ConfigError, match=r"\['models'\]; give one, model"):
        application({"models": "x"})
