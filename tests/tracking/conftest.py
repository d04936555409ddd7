"""One empty MLflow database for all tests: MLflow takes seconds to make one."""

from __future__ import annotations

import shutil

import pytest

from gemix.tracking import database


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    database.prepare_database(path)
    return path


@pytest.fixture(autouse=True)
def quick_database(request, monkeypatch, empty_database):
    if not request.node.get_closest_marker("makes_database"):
        monkeypatch.setattr(
            database, "_initialize", lambda path: shutil.copyfile(empty_database, path)
        )
