from __future__ import annotations

import pytest
from mlflow import MlflowClient

from gemix.config import load
from gemix.core.errors import AlreadyFinishedError, DataError
from gemix.data.prepare import prepare_serial
from gemix.data.shards.manifest import Manifest
from gemix.data.sources import open_source
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.prepare import prepare
from jobs.prepare import COMMAND

SMALL = (
    "data.resolution=32",
    "data.phantom.patients_per_class=4",
    "data.phantom.slices_per_patient=2",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config, workspace = load("demo", SMALL), Workspace.at(tmp_path_factory.mktemp("work"))
    return config, workspace, prepare(config, workspace)


def files(workspace):
    store = Store(workspace.data)
    return {name: store.read_bytes(name) for name in store.list(recursive=True)}


@pytest.mark.slow
def test_ray_gives_what_one_process_gives(finished, tmp_path):
    config, workspace, manifest = finished
    here = prepare_serial(open_source(config.data), config.data, Store(tmp_path))
    assert manifest == here == Manifest.load(Store(workspace.data))


@pytest.mark.slow
def test_a_finished_result_is_kept_without_overwrite(finished):
    config, workspace, _ = finished
    before = files(workspace)
    with pytest.raises(AlreadyFinishedError, match=r"data.*--overwrite"):
        prepare(config, workspace)
    assert files(workspace) == before


@pytest.mark.slow
def test_a_wrong_path_does_not_cost_the_old_result(finished):
    _, workspace, _ = finished
    before = files(workspace)
    wrong = load("demo", [*SMALL, "data.source=folder", "data.path=no/such/folder"])
    with pytest.raises(DataError, match="no such folder"):
        prepare(wrong, workspace, overwrite=True)
    assert files(workspace) == before


@pytest.mark.slow
def test_overwrite_replaces_the_result_and_the_run_is_logged(finished):
    _, workspace, old = finished
    other = load("demo", [*SMALL, "data.phantom.seed=9"])
    new = prepare(other, workspace, overwrite=True)
    assert new.digest != old.digest
    assert Manifest.load(Store(workspace.data)) == new

    client = MlflowClient(f"sqlite:///{workspace.workdir}/mlflow.db")
    experiment = client.get_experiment_by_name(other.tracking.experiment)
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
    assert runs[0].info.status == "FINISHED"
    assert runs[0].data.metrics["images_train"] == new.images("train")
    logged = {artifact.path for artifact in client.list_artifacts(runs[0].info.run_id)}
    assert {"manifest.json", "quarantine.json", "contact_sheet.png", "config.yaml"} <= logged


@pytest.mark.parametrize("scans", ["data", "data/scans", "."])
def test_scans_where_the_result_would_go_are_left_alone(tmp_path, capsys, scans):
    folder = tmp_path / scans / "normal"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(b"a scan")
    path = str(tmp_path / scans)
    arguments = ["-w", str(tmp_path), "--overwrite", "data.source=folder", f"data.path={path}"]
    assert COMMAND.main(arguments) == 1
    assert "choose another --workdir" in capsys.readouterr().err
    assert (folder / "1.png").read_bytes() == b"a scan"


def test_the_command_line_names_a_missing_folder_without_a_traceback(tmp_path, capsys):
    arguments = ["-w", str(tmp_path), "data.source=folder", "data.path=no/such/folder"]
    assert COMMAND.main(arguments) == 1
    error = capsys.readouterr().err
    assert "no/such/folder: no such folder" in error
    assert "Traceback" not in error
    assert not (tmp_path / "data").exists()


def test_help_says_what_it_reads_writes_and_costs(capsys):
    with pytest.raises(SystemExit):
        COMMAND.main(["--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("reads:", "writes:", "costs:", "manifest.json"))
