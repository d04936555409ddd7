"""The database of a study: refusals, outages, PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading

import pytest
from sqlalchemy.exc import OperationalError

from gemix.core.errors import ConfigError, GemixError, StoreError
from gemix.io.storage import Store
from gemix.io.sweep_record import REFERENCE
from gemix.sweep import database
from gemix.sweep.database import Retrying, connect, database_url
from tests.sweep.scores import run_all, scores_of


def test_the_default_lies_in_the_work_directory(tmp_path):
    assert database_url(None, Store(tmp_path)) == f"sqlite:///{tmp_path}/study.db"
    assert database_url("postgresql://host/db", Store(tmp_path)) == "postgresql://host/db"
    with pytest.raises(ConfigError, match=r"SQLite cannot lie in s3://bucket/run; set it to the"):
        database_url(None, Store("s3://bucket/run"))


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("sqlite:////nowhere/study.db", StoreError, "does not answer.*unable to open"),
        ("no url", ConfigError, "no SQLAlchemy URL"),
        ("oracel://me:secret@host/db", ConfigError, r"oracel://me:\*\*\*@host/db: no SQLAlchemy"),
    ],
)
def test_a_database_that_cannot_be_opened(url, error, message):
    with pytest.raises(error, match=message) as raised:
        connect(url)
    assert "secret" not in str(raised.value)


def test_without_its_driver_postgresql_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    message = r"postgresql://me:\*\*\*@host/db.*pip install psycopg2-binary \(the extra `postgres`"
    with pytest.raises(ConfigError, match=message):
        connect("postgresql://me:secret@host/db")


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "study.db").write_text("no database" * 100)
    with pytest.raises(GemixError, match="file is not a database"):
        connect(f"sqlite:///{tmp_path}/study.db")


def test_calls_are_tried_again_while_it_is_away(monkeypatch, caplog):
    monkeypatch.setattr(database, "_FIRST_PAUSE", 0.01)
    calls = []

    def operation() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise OperationalError("SELECT 1", {}, Exception("server closed the connection"))
        return "done"

    assert Retrying("the database", seconds=5)(operation) == "done" and len(calls) == 3
    assert "does not answer, trying again: server closed the connection" in caplog.text
    with pytest.raises(ZeroDivisionError):
        Retrying("the database")(lambda: 1 / 0)


def test_an_outage_in_the_middle_is_waited_for(open_study, url, monkeypatch):
    """Another program holds the file's lock longer than SQLite waits for it."""
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.05)
    monkeypatch.setattr(database, "_FIRST_PAUSE", 0.1)
    study = open_study()
    study._do.seconds = 30.0
    first = study.propose()
    with contextlib.closing(sqlite3.connect(url[10:], check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        release = threading.Timer(0.7, other.rollback)
        release.start()
        study.complete(first.number, scores_of(first))
        release.join()
    assert study.reference().name == REFERENCE


def test_an_outage_that_lasts_ends_the_sweep_and_loses_nothing(open_study, url, monkeypatch):
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.05)
    study = open_study()
    first = study.propose()
    study.complete(first.number, scores_of(first))
    second = study.propose()
    with contextlib.closing(sqlite3.connect(url[10:])) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match=r"away for .* the same command goes on"):
            study.complete(second.number, scores_of(second))
        other.rollback()
    study.complete(second.number, scores_of(second))  # the answer was all that was missing
    run_all(open_study())
    records = open_study().records()
    assert [r.state for r in records] == ["complete"] * 8


class PostgresServer:
    """A PostgreSQL server of this machine's package, to be stopped and started."""

    def __init__(self, folder: str):
        # it refuses to run as root
        user = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
        if user:
            shutil.chown(folder, 65534)
        initdb = [*user, "initdb", "-D", f"{folder}/data", "-U", "gemix", "-A", "trust"]
        subprocess.run(initdb, capture_output=True, check=True, cwd=folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql+psycopg2://gemix@127.0.0.1:{self.port}/postgres"
        self.command = [*user, "postgres", "-D", f"{folder}/data", "-p", str(self.port)]
        self.command += ["-k", "", "-h", "127.0.0.1"]
        self.folder = folder

    @contextlib.contextmanager
    def running(self):
        with subprocess.Popen(self.command, stderr=subprocess.PIPE, cwd=self.folder) as process:
            for line in process.stderr:
                if b"ready to accept connections" in line:
                    break
            try:
                yield
            finally:
                process.send_signal(signal.SIGINT)  # without waiting for its clients


@pytest.fixture
def postgres():
    pytest.importorskip("psycopg2", reason="needs psycopg2, the extra `postgres`")
    missing = [name for name in ("initdb", "postgres") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs PostgreSQL: {' and '.join(missing)} on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        yield PostgresServer(folder)


@pytest.mark.slow
def test_postgresql_stopped_in_the_middle(postgres, open_study, monkeypatch):
    with pytest.raises(StoreError, match="does not answer"):
        open_study(storage=postgres.url)
    with postgres.running():
        study = open_study(storage=postgres.url)
        first = study.propose()
        study.complete(first.number, scores_of(first))
        second = study.propose()
    with pytest.raises(StoreError, match="away for"):
        study.complete(second.number, scores_of(second))
    monkeypatch.setattr(database, "_FIRST_PAUSE", 0.1)
    study._do.seconds = 30.0
    with postgres.running():
        study.complete(second.number, scores_of(second))
        run_all(open_study(storage=postgres.url))
        assert len(open_study(storage=postgres.url).records()) == 8
