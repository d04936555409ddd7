from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest

from gemix.config import PipelineConfig
from gemix.core.errors import AlreadyFinishedError, DataError
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.schema import to_columns, write_shard
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.report import build_report
from jobs.report import COMMAND


@pytest.fixture
def prepared(tmp_path: Path) -> Workspace:
    """A work directory in which prepare alone has run."""
    workspace = Workspace.at(tmp_path / "run")
    rng = np.random.default_rng(0)
    labels = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]
    columns = to_columns(
        rng.integers(0, 256, (4, 1, 16, 16), dtype=np.uint8),
        labels,
        class_index=labels.argmax(axis=1),
        patients=["a", "b", "c", "d"],
        sources=["a.png", "b.png", "c.png", "d.png"],
    )
    store = Store(workspace.data)
    shard = write_shard(store, "train-00000.parquet", columns, "train")
    Manifest.of([shard], kind="real", classes=("normal", "cancer"), resolution=16, channels=1).save(
        store
    )
    return workspace


def test_the_page_is_written_logged_and_not_overwritten(prepared: Workspace):
    config = PipelineConfig()
    url = build_report(config, prepared)
    page = Path(url).read_text(encoding="utf-8")
    assert url == f"{prepared.report}/report.html"
    assert 'alt="real cancer"' in page
    assert "the verdict and the results (gemix evaluate)" in page

    client = mlflow.MlflowClient(f"sqlite:///{prepared.workdir}/mlflow.db")
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    artifacts = [item.path for item in client.list_artifacts(run.info.run_id)]
    assert "report.html" in artifacts

    with pytest.raises(AlreadyFinishedError, match="--overwrite"):
        build_report(config, prepared)
    assert build_report(config, prepared, overwrite=True) == url


def test_without_any_result_the_command_says_so_and_writes_nothing(tmp_path: Path, capfd):
    assert COMMAND.main(["--workdir", str(tmp_path / "none")]) == DataError.exit_code
    message = capfd.readouterr().err
    assert "no step has left a result here; run gemix pipeline first" in message
    assert "Traceback" not in message
    assert not (tmp_path / "none").exists()
