"""The main job, end to end, on a tiny phantom: every file that it promises."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml

from gemix.config import load
from gemix.core.errors import AlreadyFinishedError
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.pipeline import run_pipeline
from jobs._runtime import cli
from jobs._runtime.ray_executor import RayExecutor

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tiny_overrides, tmp_path_factory):
    config = load("demo", [*tiny_overrides, "synthesis.labels=teacher"])
    workspace = Workspace.at(tmp_path_factory.mktemp("pipeline"))
    return config, workspace, run_pipeline(config, workspace, executor=RayExecutor())


def test_the_summary_holds_every_figure(finished):
    _, workspace, summary = finished
    assert summary == Store(workspace.workdir).read_json("summary.json")
    assert summary["data"]["images"] == sum(summary["data"]["splits"].values()) == 36
    assert summary["data"]["classes"] == ["normal", "pneumonia", "cancer"]
    assert summary["gan"]["kimg"] == 0.064 and summary["gan"]["images_per_s"] > 0
    assert summary["synthetic"]["images"] == 140
    assert [row["method"] for row in summary["results"]] == ["real", "softmax", "onehot"]
    for row in summary["results"]:
        for name in ("accuracy", "macro_precision", "macro_recall", "macro_f1", "macro_f2", "fnr"):
            assert 0 <= row[name] <= 1
        assert row["fnr"] == pytest.approx(1 - row["macro_recall"])
        assert np.sum(row["confusion"]) == summary["data"]["splits"]["test"]
    steps = {"prepare", "train-teacher", "train-gan", "synthesize-softmax", "synthesize-onehot"}
    assert steps | {"train-classifier", "evaluate", "report"} == set(summary["wall_seconds"])


def test_the_registered_model_loads_and_predicts(finished, monkeypatch):
    _, workspace, summary = finished
    registered = summary["registered_model"]
    uri = f"models:/{registered['name']}/{registered['version']}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace.workdir}/mlflow.db")
    model = mlflow.pyfunc.load_model(uri)
    images = read_images([workspace.data], "test").images
    probabilities = np.asarray(model.predict(images))
    assert probabilities.shape == (len(images), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert model.metadata.signature is not None


def test_every_result_carries_its_settings(finished):
    config, workspace, _ = finished
    for url in (workspace.workdir, workspace.data, workspace.gan, workspace.synthetic("softmax")):
        assert load(f"{url}/config.yaml") == config


def test_the_page_is_one_file(finished):
    _, workspace, _ = finished
    page = Store(workspace.report).read_bytes("report.html").decode()
    assert "<img" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert 'src="data:image/png;base64,' in page


def test_a_finished_pipeline_is_kept(finished):
    config, workspace, _ = finished
    with pytest.raises(AlreadyFinishedError, match="--overwrite"):
        run_pipeline(config, workspace, executor=RayExecutor())


def test_a_stopped_pipeline_resumes(finished, caplog):
    config, workspace, summary = finished
    store = Store(workspace.workdir)
    store.delete("summary.json")
    Store(workspace.report).delete("report.html")
    again = run_pipeline(config, workspace, executor=RayExecutor())
    assert again["results"] == summary["results"]
    assert "evaluate: finished already" in caplog.text
    store.write_bytes("summary.json", json.dumps(summary).encode())


@pytest.fixture
def copied(finished, tmp_path):
    _, workspace, _ = finished
    shutil.copytree(workspace.workdir, tmp_path / "copy")
    return Workspace.at(tmp_path / "copy")


def test_settings_that_change_no_result_may_change(finished, copied):
    config, _, summary = finished
    store = Store(copied.workdir)
    store.delete("summary.json")
    Store(copied.report).delete("report.html")
    # as a version without these settings has left it, and one that knows others
    settings = yaml.safe_load(store.read_bytes("config.yaml"))
    del settings["gan"]["max_skipped_steps"], settings["classifier"]["weight_decay"]
    settings["gan"]["of_a_later_version"] = 1
    store.write_bytes("config.yaml", yaml.safe_dump(settings).encode())
    other = dataclasses.replace(
        config,
        compute=dataclasses.replace(config.compute, workers=0),
        metrics=dataclasses.replace(config.metrics, extractor="timm-random:resnet10t"),
        gan=dataclasses.replace(config.gan, compile=True, data_loading="memory"),
    )
    assert run_pipeline(other, copied)["results"] == summary["results"]


def test_a_changed_setting_costs_the_steps_that_read_it_and_no_other(finished, copied, caplog):
    config, _, _ = finished
    other = dataclasses.replace(
        config,
        classifier=dataclasses.replace(config.classifier, lr=0.02),
        compute=dataclasses.replace(config.compute, workers=0),
    )
    kept = [file for url in (copied.data, copied.gan) for file in Path(url).rglob("*")]
    written = [file.stat().st_mtime_ns for file in kept]
    with pytest.raises(
        AlreadyFinishedError,
        match=r"train-classifier, evaluate, report finished with other settings "
        r"\(classifier\.lr changed.*--redo",
    ):
        run_pipeline(other, copied)
    again = run_pipeline(other, copied, redo=True)
    assert [file.stat().st_mtime_ns for file in kept] == written
    assert [row["method"] for row in again["results"]] == ["real", "softmax", "onehot"]
    assert "train-classifier: runs again, since classifier.lr changed" in caplog.text
    assert load(f"{copied.workdir}/config.yaml").classifier.lr == 0.02


def test_real_scans_with_a_broken_one_among_them_run_through(
    shared, tiny_overrides, tmp_path, capfd
):
    source, scans = shared("data/iq-oth-nccd"), tmp_path / "scans"
    for folder in (path for path in source.iterdir() if path.is_dir()):
        (scans / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:40]:
            (scans / folder.name / file.name).write_bytes(file.read_bytes())
    (scans / "Normal cases" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    work = tmp_path / "work"
    overrides = [item for item in tiny_overrides if not item.startswith("data.phantom")]
    overrides += ["compute.gpus_per_worker=0"]
    arguments = ["-c", "iqoth128", "-w", str(work), f"data.path={scans}", *overrides]
    assert cli.main(["pipeline", *arguments]) == 0
    summary = Store(work).read_json("summary.json")
    copies = Manifest.load(Store(work / "data")).origin["duplicates"]["exact"]
    assert copies > 0  # the archive has some
    assert summary["data"]["images"] == 120 - copies and summary["data"]["quarantined"] == 1
    assert "broken.jpg" in Store(work / "report").read_bytes("report.html").decode()
    assert "macro-F2" in capfd.readouterr().out
