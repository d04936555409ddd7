"""Stores that refuse, hang, are damaged or misnamed: one message with the cause and what helps."""

from __future__ import annotations

import base64
import contextlib
import os
import shlex
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from gemix.config import PipelineConfig
from gemix.core.errors import DiskFullError, StoreAccessError, TrackingConfigError, TrackingError
from gemix.tracking import database
from gemix.tracking.mlflow_errors import redact_credentials, tracking_error
from gemix.tracking.mlflow_run import start_run

CONFIG = PipelineConfig.from_mapping({"tracking": {"experiment": "trials"}})


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> bytes:
    """A database with one run in it."""
    folder = tmp_path_factory.mktemp("made")
    with start_run(CONFIG, str(folder), "prepare"):
        pass
    return (folder / "mlflow.db").read_bytes()


@contextlib.contextmanager
def http_server(answer):
    """Serve /health, and whatever `answer` does for other requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers.get("Authorization")))
            if self.path == "/health":
                self.send_response(200)
                self.end_headers()
            else:
                answer(self)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    seen: list[tuple[str, str | None]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], seen
    finally:
        server.shutdown()


def start(workdir: Path) -> None:
    with start_run(CONFIG, str(workdir), "prepare"):
        pass


def test_a_server_that_answers_health_alone_is_given_up_in_time(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with http_server(lambda handler: time.sleep(60)) as (port, _):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        began = time.monotonic()
        with pytest.raises(TrackingError, match="check that the server runs"):
            start(tmp_path)
    assert time.monotonic() - began < 15


def test_credentials_are_sent_and_never_shown(tmp_path, monkeypatch, caplog):
    def refuse(handler):
        handler.send_response(401)
        handler.end_headers()

    with http_server(refuse) as (port, seen):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:s%2Fcret@127.0.0.1:{port}")
        with pytest.raises(TrackingConfigError, match="MLFLOW_TRACKING_PASSWORD") as caught:
            start(tmp_path)
    wanted = f"Basic {base64.b64encode(b'user:s/cret').decode()}"
    assert len(seen) >= 2 and {header for _, header in seen} == {wanted}
    assert f"http://127.0.0.1:{port}" in str(caught.value)
    for text in (str(caught.value), caplog.text, *map(str, tmp_path.rglob("*"))):
        assert "cret" not in text


@pytest.mark.parametrize(
    "uri",
    [
        "http://user:canary@127.0.0.1:9",
        "http://user:canary/1@127.0.0.1:9",
        "postgresql+nodriver://user:canary@127.0.0.1:9/db",
        "foo://user:canary@somewhere",
    ],
)
def test_no_message_shows_a_password(tmp_path, monkeypatch, caplog, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises((TrackingError, TrackingConfigError)) as caught:
        start(tmp_path)
    error: BaseException | None = caught.value
    while error is not None:
        assert "canary" not in str(error)
        error = None if error.__suppress_context__ else error.__context__ or error.__cause__
    assert "canary" not in caplog.text


def test_a_password_is_found_in_any_spelling():
    uri = "postgresql://me:p%40ss%2Fword@host/db"
    for text in (uri, "login with p@ss/word failed", "me:p%40ss%2Fword refused"):
        assert "ss" not in redact_credentials(text, uri)
    assert redact_credentials("http://host:80/a@b") == "http://host:80/a@b"


def test_a_driver_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://127.0.0.1:9/runs")
    with pytest.raises(
        TrackingConfigError, match=r"pip install (psycopg2-binary|'psycopg\[binary\]')"
    ):
        start(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda data: b"garbage " * 1000, lambda data: data[: len(data) // 2]]
)
def test_a_damaged_database_is_named_and_its_removal_helps(tmp_path, made, damage):
    path = tmp_path / "mlflow.db"
    path.write_bytes(damage(made))
    with pytest.raises(TrackingConfigError, match=rf"{path}: damaged.*move the file away"):
        start(tmp_path)
    path.rename(tmp_path / "away")
    start(tmp_path)


def test_a_locked_database_is_named(tmp_path, made, monkeypatch):
    monkeypatch.setattr(database, "_LOCK_SECONDS", 0.2)
    path = tmp_path / "mlflow.db"
    path.write_bytes(made)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackingError, match=rf"{path}: locked by another program"):
            start(tmp_path)
    start(tmp_path)


def test_a_deleted_experiment_is_named_and_the_command_restores_it(tmp_path):
    start(tmp_path)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    client.delete_experiment(client.get_experiment_by_name("trials").experiment_id)
    with pytest.raises(TrackingConfigError, match=r"'trials' is deleted") as caught:
        start(tmp_path)
    command = str(caught.value).partition("or run ")[2]
    variable, _, rest = command.partition(" ")
    name, value = shlex.split(variable)[0].split("=", 1)
    subprocess.run(
        [sys.executable, "-m", *shlex.split(rest)],
        env=os.environ | {name: value},
        check=True,
        capture_output=True,
    )
    start(tmp_path)


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("database or disk is full", DiskFullError, "no space left on /w"),
        ("[Errno 28] No space left on device", DiskFullError, "no space left on /w"),
        ("attempt to write a readonly database", StoreAccessError, "/w/mlflow.db: read-only"),
        ("[Errno 30] Read-only file system: '/w'", StoreAccessError, "/w/mlflow.db: read-only"),
    ],
)
def test_a_full_or_read_only_disk_is_no_fault_of_the_uri(text, kind, says):
    error = tracking_error("sqlite:////w/mlflow.db", RuntimeError(text))
    assert type(error) is kind and says in str(error)
    assert "MLFLOW_TRACKING_URI" not in str(error)
