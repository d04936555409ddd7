"""optuna-dashboard beside a sweep: its own web application on the study's database."""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gemix.io.sweep_record import REFERENCE
from gemix.sweep.database import connect
from gemix.sweep.objective import Scores
from tests.sweep.scores import scores_of

dashboard = pytest.importorskip(
    "optuna_dashboard", reason="needs optuna-dashboard, the extra `dashboard`"
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def get(storage: object, path: str) -> Any:
    """Ask the application, without a server, for JSON."""
    status = []
    environment = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "SERVER_NAME": "here",
        "SERVER_PORT": "0",
        "wsgi.url_scheme": "http",
    }
    body = b"".join(dashboard.wsgi(storage)(environment, lambda code, *_: status.append(code)))
    assert status == ["200 OK"], body
    return json.loads(body)


def test_the_dashboard_shows_a_running_sweep(open_study, url):
    study = open_study()
    reference = study.propose()
    study.complete(reference.number, scores_of(reference))
    running = study.propose()
    study.report(running.number, 1, Scores(macro_f2=0.25, fnr=0.5))
    storage = connect(url)  # as the dashboard opens it, in a process of its own
    (listed,) = get(storage, "/api/studies")["study_summaries"]
    assert listed["study_name"] == "sweep" and listed["directions"] == ["maximize"]
    shown = get(storage, f"/api/studies/{listed['study_id']}")["trials"]
    assert [trial["state"] for trial in shown] == ["Complete", "Running"]
    assert shown[0]["values"] == [pytest.approx(study.records()[0].scores.macro_f2)]
    attributes = {one["key"]: one["value"] for one in shown[0]["user_attrs"]}
    assert attributes["name"] == REFERENCE
    assert {one["name"] for one in shown[1]["params"]} == set(running.params)
    assert shown[1]["intermediate_values"] == [{"step": 1, "value": 0.25}]
    study.complete(running.number, scores_of(running))
    again = get(storage, f"/api/studies/{listed['study_id']}")["trials"]
    assert [trial["state"] for trial in again] == ["Complete", "Complete"]


@contextlib.contextmanager
def served(url: str, folder: Path) -> Iterator[str]:
    """Run the command ``optuna-dashboard`` on a database and give its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("optuna-dashboard"), url, "--port", str(port)]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | {"HOME": str(folder)}
        ) as server,
    ):
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=0.1).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.fixture
def render(tmp_path) -> Callable[[str], str]:
    """Opens an address in a headless browser and returns the text that a person would read."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"needs a browser: one of {', '.join(BROWSERS)} on the PATH")

    def render_(page: str) -> str:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu"]
        # of the page's own clock, which stands still while it waits for the server
        command += ["--disable-dev-shm-usage", "--virtual-time-budget=15000"]
        command += [f"--user-data-dir={tmp_path}/profile", "--dump-dom", page]
        found = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert found.returncode == 0, found.stderr
        without = re.sub(r"(?s)<(script|style)\b.*?</\1>", " ", found.stdout)
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", without)).split())

    return render_


def test_a_browser_shows_the_trials_of_a_running_sweep(open_study, render, url, tmp_path):
    study = open_study()
    reference = study.propose()
    study.complete(reference.number, scores_of(reference))
    running = study.propose()
    study.report(running.number, 1, Scores(macro_f2=0.25, fnr=0.5))
    with served(url, tmp_path) as address:
        assert "sweep" in render(f"{address}/dashboard")
        trials = render(f"{address}/dashboard/studies/1/trials?numbers=0")
        trial = render(f"{address}/dashboard/studies/1/trials?numbers=1")
    assert "2 Trials Trial 0 Complete" in trials and "Trial 1 Running" in trials
    assert f"Value {study.records()[0].scores.macro_f2}" in trials
    assert f"name {REFERENCE}" in trials
    assert f"temperature {running.params['temperature']}" in trial and "0.25" in trial
