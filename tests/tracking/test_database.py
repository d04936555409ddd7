"""The SQLite file of a work directory: whole or not there, and moved along."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
from mlflow import MlflowClient

from gemix.config import PipelineConfig
from gemix.core.errors import TrackingConfigError
from gemix.tracking.client import database_uri
from gemix.tracking.database import prepare_database
from gemix.tracking.mlflow_run import start_run

CONFIG = PipelineConfig.from_mapping({"tracking": {"experiment": "trials"}})
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def start(workdir: Path) -> str:
    with start_run(CONFIG, str(workdir), "prepare") as run:
        run.log_text("hello", "notes.txt")
    return run.run_id


def artifacts_of(workdir: Path, run_id: str) -> Path:
    client = MlflowClient(database_uri(workdir / "mlflow.db"))
    assert Path(client.download_artifacts(run_id, "notes.txt")).read_text() == "hello"
    return Path(url2pathname(urlsplit(client.get_run(run_id).info.artifact_uri).path))


@pytest.mark.makes_database
def test_a_process_killed_while_it_makes_the_database_leaves_none(tmp_path):
    path = tmp_path / "mlflow.db"
    process = SPAWN.Process(target=prepare_database, args=(path,))
    process.start()
    while not list(tmp_path.iterdir()):
        time.sleep(0.01)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not path.exists()
    start(tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == {"mlflow.db", "mlartifacts"}


@pytest.mark.slow
@pytest.mark.makes_database
def test_processes_that_start_at_once_share_one_database(tmp_path):
    processes = [SPAWN.Process(target=start, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    client = MlflowClient(database_uri(tmp_path / "mlflow.db"))
    assert len(client.search_runs([client.get_experiment_by_name("trials").experiment_id])) == 3


@pytest.mark.parametrize(
    "undo",
    [
        ["DROP TABLE alembic_version"],
        ["DELETE FROM alembic_version"],
        ["UPDATE alembic_version SET version_num = '451aebb31d03'", "DROP TABLE logged_models"],
    ],
)
def test_a_half_made_database_without_runs_is_made_anew(tmp_path, empty_database, undo):
    path = tmp_path / "mlflow.db"
    shutil.copyfile(empty_database, path)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for command in undo:
            database.execute(command)
    start(tmp_path)


def test_a_half_made_database_with_runs_is_kept(tmp_path):
    start(tmp_path)
    path = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM alembic_version")
    before = path.read_bytes()
    with pytest.raises(TrackingConfigError, match=rf"{path}: half made.* 1 runs in it"):
        start(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("move", [os.rename, shutil.copytree])
def test_artifacts_follow_a_work_directory_that_was_moved_or_copied(tmp_path, move):
    old, new = tmp_path / "old", tmp_path / "new %20 ä"
    first = start(old)
    move(old, new)
    second = start(new)
    for run_id in (first, second):
        assert new in artifacts_of(new, run_id).parents
    assert old.exists() == (move is shutil.copytree)
    if old.exists():
        assert not (old / "mlartifacts" / second).exists()


def test_artifacts_of_another_work_directory_stay_there(tmp_path, monkeypatch):
    shared, other = tmp_path / "shared", tmp_path / "other"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared}/mlflow.db")
    run_id = start(other)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    start(shared)
    assert other in artifacts_of(shared, run_id).parents


@pytest.mark.parametrize("name", ["percent%20x", "query?x=1", "hash#1"])
def test_any_name_of_a_work_directory_works(tmp_path, name):
    workdir = tmp_path / name
    run_id = start(workdir)
    assert workdir in artifacts_of(workdir, run_id).parents
    assert [one.name for one in tmp_path.iterdir()] == [name]
