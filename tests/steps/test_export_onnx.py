"""export-onnx: a file that answers as PyTorch does, with a description beside it."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import hashlib
import io
import re
import sys

import numpy as np
import pytest
import torch

from gemix.classifier.bundle import Classifier
from gemix.classifier.decision.decision import Decision
from gemix.core.errors import AlreadyFinishedError, CheckpointError, ConfigError, DataError
from gemix.io.results import CLASSIFIERS
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.serving import onnx_model
from gemix.steps.export_onnx import export_onnx
from jobs._runtime.cli import main
from tests.steps.untrained_networks import CLASSES, write_classifier

CONFUSION = ((1, 0, 0), (0, 1, 0), (0, 0, 1))


def write_classifiers(workspace: Workspace) -> None:
    """Two classifiers, the second one better and calibrated."""
    rows = []
    for seed in range(2):
        store = Store(f"{workspace.classifiers}/real-seed{seed}")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            write_classifier(store.url, CONFUSION)
        found = Classifier.load(store)
        state = dict(found.state) | {"fc.weight": found.state["fc.weight"] * 30}
        decision = Decision(temperature=1.0 + 2 * seed, normal=2, threshold=0.25)
        dataclasses.replace(found, state=state, decision=decision).save(store)
        scores = {"val_macro_f2": 0.5 + seed / 10, "val_loss": 1.0}
        rows.append({"name": f"real-seed{seed}", "method": "real", "seed": seed, **scores})
    Store(workspace.classifiers).write_json(CLASSIFIERS, rows)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    workspace = Workspace.at(tmp_path_factory.mktemp("work"))
    write_classifiers(workspace)
    return workspace


@pytest.fixture(scope="module")
def packages() -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)


@pytest.fixture(scope="module")
def exported(packages, workspace) -> tuple[str, str]:
    """The file of the best classifier, and what the command prints."""
    out, text = f"{workspace.workdir}/best.onnx", io.StringIO()
    with contextlib.redirect_stdout(text):
        assert main(["export-onnx", "-w", workspace.workdir, out]) == 0
    return out, text.getvalue()


def test_it_answers_as_the_classifier_does_for_batches_of_any_size(exported, workspace):
    import onnxruntime

    classifier = Classifier.load(Store(f"{workspace.classifiers}/real-seed1"))
    session = onnxruntime.InferenceSession(exported[0])
    for count in (1, 5):
        images = np.random.default_rng(count).integers(0, 256, (count, 1, 16, 16), dtype=np.uint8)
        (found,) = session.run(None, {"images": images})
        np.testing.assert_allclose(found, classifier.predict(images), atol=1e-4)
    assert classifier.predict(images).std() > 0.01  # it does not say the same of all


def test_the_description_tells_what_goes_in_and_comes_out(exported, workspace):
    out = Store(workspace.workdir)
    found = out.read_json("best.json")
    classifier = Classifier.load(Store(f"{workspace.classifiers}/real-seed1"))
    assert found["classifier"] == "real-seed1" and found["classes"] == list(CLASSES)
    assert found["checksum"] == classifier.checksum
    assert found["sha256"] == hashlib.sha256(out.read_bytes("best.onnx")).hexdigest()
    assert found["input"]["name"] == "images" and found["input"]["dtype"] == "uint8"
    assert found["input"]["shape"] == ["batch", 1, 16, 16]
    assert found["decision"]["temperature"] == 3.0 and found["preprocessing"] is None
    assert found["largest_difference_to_pytorch"] <= 1e-4


def test_the_command_prints_the_latency_of_a_named_processor(exported):
    lines = exported[1].splitlines()
    assert re.match(r"real-seed1 in .*best\.onnx: probabilities within \S+ of PyTorch's", lines[0])
    assert re.search(r"\w.*, \d+ thread\(s\), median ms a batch", lines[2])
    rows = [line.split() for line in lines[4:]]
    assert [row[0] for row in rows] == ["1", "16"]
    assert all(float(value) > 0 for row in rows for value in row[1:])


def test_another_classifier_is_named_and_a_file_is_kept(exported, workspace, capsys):
    with pytest.raises(AlreadyFinishedError, match="pass --overwrite"):
        export_onnx(workspace, exported[0])
    before = Store(workspace.workdir).read_bytes("best.onnx")
    with pytest.raises(CheckpointError, match="no finished classifier"):
        export_onnx(workspace, exported[0], name="real-seed7", overwrite=True)
    assert Store(workspace.workdir).read_bytes("best.onnx") == before
    with pytest.raises(ConfigError, match=r"must end in \.onnx"):
        export_onnx(workspace, f"{workspace.workdir}/best.onx")


def test_a_model_that_disagrees_is_not_written(packages, workspace, monkeypatch):
    def off(data):
        run = open_session(data)
        return lambda images: run(images) + np.float32(3e-4)

    open_session = onnx_model.open_session
    monkeypatch.setattr(onnx_model, "open_session", off)
    with pytest.raises(CheckpointError, match=r"differ by up to 0\.0003 from PyTorch's"):
        export_onnx(workspace, f"{workspace.workdir}/off.onnx", name="real-seed0")
    assert not [name for name in Store(workspace.workdir).list() if name.startswith("off")]


def test_an_export_that_was_killed_is_made_again(packages, workspace, monkeypatch):
    class Killed(BaseException):
        """The process ends, whatever is caught."""

    def kill(*_):
        raise Killed

    out = f"{workspace.workdir}/killed.onnx"
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_json", kill)
        with pytest.raises(Killed):
            export_onnx(workspace, out)
    store = Store(workspace.workdir)
    assert store.exists("killed.onnx") and not store.exists("killed.json")
    export_onnx(workspace, out)
    found = store.read_json("killed.json")["sha256"]
    assert found == hashlib.sha256(store.read_bytes("killed.onnx")).hexdigest()


def test_a_description_that_cannot_be_made_leaves_no_file(packages, workspace):
    store = Store(f"{workspace.classifiers}/real-seed5")
    found = Classifier.load(Store(f"{workspace.classifiers}/real-seed0"))
    dataclasses.replace(found, preprocessing={"windows": "none"}).save(store)
    with pytest.raises(DataError, match="update gemix"):
        export_onnx(workspace, f"{workspace.workdir}/odd.onnx", name="real-seed5")
    assert not [name for name in Store(workspace.workdir).list() if name.startswith("odd")]


def test_a_missing_package_is_named_with_its_command(workspace, monkeypatch, capsys):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "onnxscript":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, object())
    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["export-onnx", "-w", workspace.workdir, "x.onnx"]) == 2
    text = capsys.readouterr().err
    assert "onnxscript is not installed; pip install onnx onnxruntime onnxscript" in text
    assert len(text.splitlines()) == 1
