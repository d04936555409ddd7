"""optuna-dashboard beside a sweep: its own web application on the study's database."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gemix.io.sweep_record import REFERENCE
from gemix.sweep.database import connect
from gemix.sweep.objective import Scores
from tests.sweep.scores import scores_of

dashboard = pytest.importorskip(
    "optuna_dashboard", reason="needs optuna-dashboard, the extra `dashboard`"
)


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
