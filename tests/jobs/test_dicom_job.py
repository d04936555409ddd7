"""A DICOM archive through the real job: nothing of its headers and paths is left anywhere."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import ray
from mlflow import MlflowClient

from gemix.data.shards.manifest import Manifest
from gemix.io.storage import Store
from jobs.prepare import COMMAND
from tests.data.dicom_files import (
    PLANTED,
    PLANTED_BAD,
    SALT,
    assert_no_canary,
    assert_no_canary_below,
    write_planted_archive,
)


@pytest.mark.slow
def test_a_job_on_dicom_writes_and_logs_nothing_of_headers_or_paths(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("GEMIX_PATIENT_SALT", SALT)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    source = write_planted_archive(tmp_path / "archive")
    workdir = tmp_path / "work"
    capfd.readouterr()
    settings = ["data.source=dicom", f"data.path={source.store.url}", "data.labels=labels.csv"]
    arguments = ["-w", str(workdir), *settings, "data.resolution=32"]

    assert COMMAND.main([*arguments, "data.max_bad_fraction=0"]) == 1
    left = assert_no_canary_below(workdir)
    assert any(re.fullmatch(r"data/unfinished/part-.*\.parquet", name) for name in left)
    assert COMMAND.main([*arguments, "data.max_bad_fraction=1"]) == 0

    written = assert_no_canary_below(workdir)
    assert {"data/manifest.json", "data/CARD.md", "data/quarantine.json", "mlflow.db"} < written
    assert any(name.startswith("mlartifacts/") for name in written)
    output = "".join(capfd.readouterr())
    assert_no_canary(output)
    assert f"{PLANTED_BAD} of " in output and f"{PLANTED_BAD} bad files set aside" in output
    time.sleep(1)  # Ray writes its logs in its own time
    logs = ray_logs()
    assert "ray-data/ray-data.log" in assert_no_canary_below(logs)

    manifest = Manifest.load(Store(workdir / "data"))
    assert manifest.images() == PLANTED
    client = MlflowClient(f"sqlite:///{workdir}/mlflow.db")
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
    newest, failed = client.search_runs([experiment.experiment_id])
    assert (newest.info.status, failed.info.status) == ("FINISHED", "FAILED")
    (dataset,) = (one.dataset for one in newest.inputs.dataset_inputs)
    assert json.loads(dataset.source) == {"digest": manifest.digest}
    assert dataset.name == "real" and manifest.digest.startswith(dataset.digest)
    assert len(dataset.digest) == 36  # the most that MLflow takes


def ray_logs() -> Path:
    """Where the Ray that this process is connected to keeps its logs."""
    context = ray.get_runtime_context()
    return Path(context.get_temp_dir(), context.get_session_name(), "logs")
