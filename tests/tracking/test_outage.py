"""A real MLflow server that is stopped, started, or hangs, while a run logs to it."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from gemix.config import PipelineConfig
from gemix.core.errors import TrackingError
from gemix.io.storage import Store
from gemix.tracking import mlflow_run
from gemix.tracking.mlflow_run import Run, start_run
from tests.mlflow_server import MlflowServer

CONFIG = PipelineConfig.from_mapping({"tracking": {"experiment": "outage"}})
POINTS = {step: step / 10 for step in range(30)}


@pytest.fixture(scope="module")
def server(tmp_path_factory, empty_database):
    server = MlflowServer(tmp_path_factory.mktemp("server"), empty_database)
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def short_limits(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setattr(mlflow_run, "_CLOSE_SECONDS", 60.0)


@pytest.fixture(autouse=True)
def tracking_uri(server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)


def log(run: Run, steps: range, sample: str = "") -> None:
    """Log some steps as a training does, and hold that no call waits."""
    for step in steps:
        began = time.monotonic()
        run.log_metrics({"loss": POINTS[step]}, step)
        if sample:
            run.log_bytes(sample.encode(), f"samples/{sample}.png")
            run.set_tags({"objective": sample})
        assert time.monotonic() - began < 2


def assert_whole(server: MlflowServer, run: Run, steps: range, samples: set[str]) -> None:
    client = MlflowClient(server.url)
    history = client.get_metric_history(run.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == [
        (step, POINTS[step]) for step in steps
    ]
    found = client.list_artifacts(run.run_id, "samples")
    assert {Path(one.path).stem for one in found} == samples
    stored = client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.params["tracking.experiment"] == "outage"


def test_a_server_stopped_and_started_in_the_middle_gets_everything_once(server, tmp_path, caplog):
    workdir = str(tmp_path)
    with start_run(CONFIG, workdir, "train-gan") as run:
        log(run, range(10), "before")
        server.stop()
        log(run, range(10, 20), "during")
        time.sleep(2)  # it notices
        assert list(tmp_path.glob("mlflow-spool/*/*.jsonl"))
        server.start()
        log(run, range(20, 30), "after")
    assert_whole(server, run, range(30), {"before", "during", "after"})
    assert MlflowClient(server.url).get_run(run.run_id).data.tags["objective"] == "after"
    assert not (tmp_path / "mlflow-spool").exists()
    warnings = [one.getMessage() for one in caplog.records if "The step goes on" in one.msg]
    assert len(warnings) == 1 and server.url in warnings[0]


def test_what_a_hanging_server_did_not_take_is_sent_by_the_next_run(
    server, tmp_path, monkeypatch, caplog
):
    workdir = str(tmp_path)
    monkeypatch.setattr(mlflow_run, "_CLOSE_SECONDS", 2.0)
    with start_run(CONFIG, workdir, "train-gan") as run:
        server.signal(signal.SIGSTOP)
        try:
            log(run, range(10), "hanging")
        finally:
            began = time.monotonic()
    assert time.monotonic() - began < 5
    assert "are kept in" in caplog.text and f"{workdir}/mlflow-spool" in caplog.text
    server.signal(signal.SIGCONT)
    monkeypatch.setattr(mlflow_run, "_CLOSE_SECONDS", 60.0)
    with start_run(CONFIG, workdir, "synthesize") as other:
        log(other, range(3), "other")
        wait_until(lambda: not list(tmp_path.glob(f"mlflow-spool/{run.run_id}/*.jsonl")))
    assert_whole(server, run, range(10), {"hanging"})
    assert_whole(server, other, range(3), {"other"})
    assert not (tmp_path / "mlflow-spool").exists()


def test_what_is_unsent_waits_in_a_work_directory_in_s3(server, bucket, monkeypatch):
    workdir = f"{bucket}/run"
    monkeypatch.setattr(mlflow_run, "_CLOSE_SECONDS", 2.0)
    with start_run(CONFIG, workdir, "train-gan") as run:
        server.signal(signal.SIGSTOP)
        log(run, range(10), "s3")
    server.signal(signal.SIGCONT)
    spool = Store(f"{workdir}/mlflow-spool")
    assert spool.list(recursive=True)
    monkeypatch.setattr(mlflow_run, "_CLOSE_SECONDS", 60.0)
    with start_run(CONFIG, workdir, "synthesize"):
        wait_until(lambda: not spool.list(recursive=True))
    assert_whole(server, run, range(10), {"s3"})


def test_what_a_killed_worker_could_not_send_is_sent_at_the_end_of_the_run(server, tmp_path):
    with start_run(CONFIG, str(tmp_path), "train-gan") as run:
        server.signal(signal.SIGSTOP)
        spawn = multiprocessing.get_context("spawn")
        worker = spawn.Process(target=log_and_die, args=(pickle.dumps(run),))
        worker.start()
        worker.join()
        server.signal(signal.SIGCONT)
        assert worker.exitcode == -signal.SIGKILL
    assert_whole(server, run, range(10), {"worker"})


def test_a_run_starts_while_a_server_that_answered_before_is_away(server, tmp_path, monkeypatch):
    workdir = str(tmp_path)
    with start_run(CONFIG, workdir, "prepare"):
        pass
    server.stop()
    monkeypatch.setattr(mlflow_run, "_CLOSE_SECONDS", 2.0)
    with start_run(CONFIG, workdir, "train-gan") as run:
        spawn = multiprocessing.get_context("spawn")
        worker = spawn.Process(target=log_and_die, args=(pickle.dumps(run),))
        worker.start()
        worker.join()
    server.start()
    monkeypatch.setattr(mlflow_run, "_CLOSE_SECONDS", 60.0)
    with start_run(CONFIG, workdir, "synthesize"):
        wait_until(lambda: not list(tmp_path.glob(f"mlflow-spool/{run.run_id}/*.jsonl")))
    (found,) = MlflowClient(server.url).search_runs(
        [MlflowClient(server.url).get_experiment_by_name("outage").experiment_id],
        f"tags.`gemix.offline_id` = '{run.run_id}'",
    )
    assert found.info.run_name == found.data.tags["job"] == "train-gan"
    assert found.info.start_time <= found.info.end_time
    assert_whole(server, dataclasses.replace(run, run_id=found.info.run_id), range(10), {"worker"})


def test_a_server_that_hangs_at_the_start_is_told_in_time(server, tmp_path):
    server.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with (
            pytest.raises(TrackingError, match=f"{server.url}.*check that the server runs"),
            start_run(CONFIG, str(tmp_path), "train-gan"),
        ):
            pass
        assert time.monotonic() - began < 30
    finally:
        server.signal(signal.SIGCONT)


def test_a_server_that_refuses_an_entry_gets_the_others(server, tmp_path, caplog):
    with start_run(CONFIG, str(tmp_path), "train-gan") as run:
        run.log_params({"tracking": {"experiment": "another"}})  # params cannot change
        run.log_metrics({"not\na name": 1.0})
        log(run, range(5), "x")
    assert_whole(server, run, range(5), {"x"})
    refused = tmp_path / "mlflow-spool" / run.run_id / "refused.jsonl"
    assert len(refused.read_text().splitlines()) == 2 and str(refused) in caplog.text


def log_and_die(pickled: bytes) -> None:
    log(pickle.loads(pickled), range(10), "worker")
    os.kill(os.getpid(), signal.SIGKILL)


def wait_until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
