"""The main job, end to end, on a tiny phantom: every file that it promises."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml

from gemix.config import load
from gemix.core.errors import AlreadyFinishedError
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.io.audit_record import AUDIT, read_audit
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.pipeline import run_pipeline
from gemix.steps.synthesize import synthesize
from jobs._runtime import cli
from jobs._runtime.ray_executor import RayExecutor

pytestmark = pytest.mark.slow


class DyingActor(RayExecutor):
    """Kills the actor that has written a set's first shard and not told of it yet, once.

    Attributes:
        folder: of the set.
        died: a file with the time when the shard was written, in nanoseconds.
    """

    def __init__(self, folder: Path, died: Path):
        self.folder, self.died = folder, died

    def map_with_state(self, build, inputs, **plan):
        """Map with a function that kills its process."""
        shard, died = self.folder / "00000.parquet", self.died

        def dying():
            write = build()

            def call(given):
                result = write(given)
                if shard.exists() and not died.exists():
                    died.write_text(str(shard.stat().st_mtime_ns))
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return call

        return super().map_with_state(dying, inputs, **plan)


@pytest.fixture(scope="module")
def finished(tiny_overrides, tmp_path_factory):
    """A pipeline in which an actor died half way through the softmax images."""
    config = load("demo", [*tiny_overrides, "synthesis.labels=teacher"])
    workspace = Workspace.at(tmp_path_factory.mktemp("pipeline"))
    executor = DyingActor(Path(workspace.synthetic("softmax")), Path(workspace.workdir, "died"))
    return config, workspace, run_pipeline(config, workspace, executor=executor)


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
    steps = ["prepare", "train-teacher", "train-gan", "synthesize-softmax", "synthesize-onehot"]
    steps += ["audit-softmax", "audit-onehot", "train-classifier", "evaluate", "report"]
    assert steps == list(summary["wall_seconds"])


def test_no_verdict_of_the_audit_ends_it_and_all_of_them_are_shown(finished):
    """Of 18 patients nothing can be said."""
    config, workspace, summary = finished
    page = Store(workspace.report).read_bytes("report.html").decode()
    for method in config.synthesis.methods:
        audit = read_audit(*digest_of(workspace, method))
        assert summary["audits"][method] == {
            "verdict": audit.verdict,
            "reasons": list(audit.reasons),
        }
        assert audit.verdict == "undecided"
        assert any("audit.min_patients" in reason for reason in audit.reasons)
        assert f"<h3>{method} images: undecided</h3>" in page


def digest_of(workspace: Workspace, method: str) -> tuple[Store, str]:
    store = Store(workspace.synthetic(method))
    return store, Manifest.load(store).digest


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


def test_an_actor_that_dies_costs_no_image_and_makes_none_twice(finished, copied):
    config, workspace, _ = finished
    url = workspace.synthetic("softmax")
    died = int(Path(workspace.workdir, "died").read_text())
    assert Path(url, "00000.parquet").stat().st_mtime_ns == died  # was not written again
    found = Manifest.load(Store(url))
    assert len(found.shards) == 2
    assert read_images([url]).groups == tuple(f"synthetic-softmax-{row}" for row in range(70))
    undisturbed = synthesize(config, copied, methods=["softmax"], overwrite=True)["softmax"]
    assert undisturbed.digest == found.digest


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
        audit=dataclasses.replace(config.audit, in_pipeline=False),
    )
    Store(copied.synthetic("onehot")).delete(AUDIT)
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
    assert not Store(copied.synthetic("onehot")).exists(AUDIT)
    verdicts = {method: audit["verdict"] for method, audit in again["audits"].items()}
    assert verdicts == {"softmax": "undecided", "onehot": "not audited"}


def test_an_early_end_does_not_hide_that_later_steps_have_other_settings(finished, copied):
    config, _, _ = finished
    Store(copied.workdir).delete("summary.json")
    other = dataclasses.replace(config, classifier=dataclasses.replace(config.classifier, lr=0.02))
    with pytest.raises(AlreadyFinishedError, match="train-classifier"):
        run_pipeline(other, copied, until="train-gan")
    assert run_pipeline(config, copied, until="train-gan") == {}
    assert not Store(copied.workdir).exists("summary.json")


def test_it_ends_after_the_step_that_is_named_and_resumes(tiny_overrides, tmp_path, capsys):
    workspace = Workspace.at(tmp_path)
    arguments = ["pipeline", "-c", "demo", "-w", workspace.workdir, *tiny_overrides]
    assert cli.main([*arguments, "--until", "prepare"]) == 0
    assert Store(workspace.data).exists("manifest.json")
    assert not Path(workspace.teacher).exists() and "macro-F2" not in capsys.readouterr().out
    written = Path(workspace.data, "manifest.json").stat().st_mtime_ns
    assert cli.main([*arguments, "--until", "train-teacher"]) == 0
    assert Path(workspace.data, "manifest.json").stat().st_mtime_ns == written
    assert Store(workspace.teacher).exists("teacher.json") and not Path(workspace.gan).exists()


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
