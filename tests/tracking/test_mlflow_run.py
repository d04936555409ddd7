"""Runs in a local MLflow store, as the jobs and their workers write them."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from gemix.config import PipelineConfig
from gemix.core.errors import GemixError
from gemix.tracking.client import tracking_uri
from gemix.tracking.mlflow_run import Run, start_run


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def config() -> PipelineConfig:
    return PipelineConfig.from_mapping({"tracking": {"experiment": "trials"}})


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("tracking") / "a run")  # a space must not matter


def write_from_worker(pickled: bytes, step: int) -> None:
    run: Run = pickle.loads(pickled)
    run.log_metrics({"loss": step / 10}, step)


def test_a_run_holds_settings_metrics_artifacts_and_data(config, workdir):
    with start_run(config, workdir, "prepare") as run:
        run.log_metrics({"a/b": 0.5, "none": None, "nan": float("nan")}, step=3)
        run.log_params({"deep": {"er": [1, 2]}, "long": "x" * 10_000})
        run.log_text("hello", "notes/hello.txt")
        run.log_bytes(b"\x89PNG", "samples/000012.png")
        run.log_dataset("ab" * 32, "real", "training")
    client = MlflowClient(f"sqlite:///{workdir}/mlflow.db")
    found = client.get_run(run.run_id)
    assert (found.info.run_name, found.info.status) == ("prepare", "FINISHED")
    assert client.get_experiment(found.info.experiment_id).name == "trials"
    assert found.data.metrics == {"a/b": 0.5}
    assert client.get_metric_history(run.run_id, "a/b")[0].step == 3
    assert found.data.params["data.resolution"] == str(config.data.resolution)
    assert found.data.params["deep.er"] == "[1, 2]"
    assert 100 < len(found.data.params["long"]) < 10_000
    assert found.data.tags["digest.real.training"] == "ab" * 32
    assert found.inputs.dataset_inputs[0].dataset.name == "real"
    folder = Path(client.download_artifacts(run.run_id, ""))
    assert (folder / "samples/000012.png").read_bytes() == b"\x89PNG"
    assert (folder / "notes/hello.txt").read_text() == "hello"
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    assert PipelineConfig.from_mapping(settings) == config
    assert Path(workdir, "mlartifacts") in folder.parents


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_a_run_that_stops_early_says_so(config, workdir, error, status):
    with pytest.raises(type(error)), start_run(config, workdir, "train-gan") as run:
        raise error
    assert run.client.get_run(run.run_id).info.status == status


@pytest.mark.slow
def test_worker_processes_write_to_the_same_run(config, workdir):
    spawn = multiprocessing.get_context("spawn")
    with start_run(config, workdir, "train-gan") as run, ProcessPoolExecutor(2, spawn) as pool:
        pickled = pickle.dumps(run)
        list(pool.map(write_from_worker, [pickled] * 4, range(4)))
    history = run.client.get_metric_history(run.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == [
        (0, 0.0),
        (1, 0.1),
        (2, 0.2),
        (3, 0.3),
    ]


def test_two_runs_may_be_open_at_once(config, workdir):
    with (
        start_run(config, workdir, "pipeline") as outer,
        start_run(config, workdir, "report") as inner,
    ):
        outer.log_metrics({"x": 1})
        inner.log_metrics({"x": 2})
    values = [run.client.get_run(run.run_id).data.metrics["x"] for run in (outer, inner)]
    assert values == [1, 2]


def test_the_environment_names_another_store(config, workdir, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    with start_run(config, workdir, "prepare") as run:
        run.log_text("x", "x.txt")
    assert run.tracking_uri == f"sqlite:///{tmp_path}/other.db"
    assert Path(run.client.download_artifacts(run.run_id, "x.txt")).read_text() == "x"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "foo://somewhere"])
def test_a_store_that_cannot_be_reached_is_named(config, workdir, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with (
        pytest.raises(GemixError, match=f"{uri}.*MLFLOW_TRACKING_URI"),
        start_run(config, workdir, "x"),
    ):
        pass


def test_a_work_directory_in_s3_needs_a_server():
    with pytest.raises(GemixError, match="set MLFLOW_TRACKING_URI"):
        tracking_uri("s3://bucket/run")


def test_a_work_directory_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(GemixError, match=r"file/run: cannot be made .*--workdir"):
        tracking_uri(f"{tmp_path}/file/run")
