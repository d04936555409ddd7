"""MLflow's SQLite file: made whole or not at all, and moved along with its work directory."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from gemix.core.errors import TrackingConfigError
from gemix.tracking.client import database_uri, load_mlflow, remove_encoded_folder
from gemix.tracking.mlflow_errors import tracking_error

log = logging.getLogger(__name__)

ARTIFACTS = "mlartifacts"
_LOCK_SECONDS = 10  # to wait for another program that writes
_ASIDE = ".making-"
# columns of absolute artifact locations
_LOCATIONS = {
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "experiments": ("artifact_location",),
}


def prepare_database(path: Path) -> None:
    """Make the database if it is not there, and check it if it is. Safe for many processes.

    MLflow makes some fifty tables and migrations in a row. The file appears under its name when
    all are done, so that a process that ends in between leaves nothing behind. One left half made
    by an earlier version is made anew if no run is in it.

    Raises:
        TrackingConfigError: if the file is damaged, or half made with runs in it.
        TrackingError: if another program locks it.
        DiskFullError, StoreAccessError: if it cannot be written.
    """
    uri = database_uri(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock_directory(path.parent):
            if not path.exists() or path.stat().st_size == 0 or _is_half_made(path):
                _make(path)
    except (OSError, sqlite3.Error) as error:
        raise tracking_error(uri, error) from None


def relocate_artifacts(path: Path) -> int:
    """Point a database at the artifacts beside it, after its directory was moved or copied.

    MLflow records absolute locations. One below another directory's ``mlartifacts`` is changed if
    the same folder is below the one beside the database.

    Returns:
        How many locations were changed.
    """
    ours = path.parent / ARTIFACTS
    base = ours.as_uri()
    changed, old_bases = 0, set()
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=_LOCK_SECONDS)) as database, database:
            for table, columns in _LOCATIONS.items():
                for column in columns:
                    query = f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE ?"
                    found = database.execute(query, [f"file:%/{ARTIFACTS}%"]).fetchall()
                    for (location,) in found:
                        old, _, below = location.rpartition(f"/{ARTIFACTS}")
                        if location.startswith(base) or below[:1] not in ("", "/"):
                            continue
                        if table == "experiments":  # follows its runs, or leaves a lost place
                            gone = not os.path.isdir(url2pathname(urlsplit(old).path))
                            moved = old in old_bases or gone
                        else:
                            moved = (ours / unquote(below[1:])).is_dir()
                        if not moved:
                            continue
                        old_bases.add(old)
                        database.execute(
                            f"UPDATE {table} SET {column} = ? WHERE {column} = ?",
                            [base + below, location],
                        )
                        changed += 1
    except sqlite3.Error as error:
        raise tracking_error(database_uri(path), error) from None
    if changed:
        log.info("MLflow artifacts follow the work directory to %s", ours)
    return changed


@contextlib.contextmanager
def _lock_directory(folder: Path) -> Iterator[None]:
    """Hold the directory's advisory lock, which ends with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # file systems without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(path: Path) -> None:
    """Make a database aside and rename it to `path`."""
    for left in path.parent.glob(f"{path.name}{_ASIDE}*"):
        left.unlink(missing_ok=True)
    aside = path.with_name(f"{path.name}{_ASIDE}{secrets.token_hex(4)}")
    try:
        _initialize(aside)
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        for journal in ("-journal", "-wal", "-shm"):  # of what is replaced
            Path(f"{path}{journal}").unlink(missing_ok=True)
        os.replace(aside, path)
        descriptor = os.open(path.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    finally:
        aside.unlink(missing_ok=True)


def _initialize(path: Path) -> None:
    """Let MLflow make its tables and its default experiment."""
    from sqlalchemy.exc import SQLAlchemyError

    mlflow = load_mlflow()
    uri = database_uri(path)
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    try:
        store = SqlAlchemyStore(uri, (path.parent / ARTIFACTS).as_uri())
    except (mlflow.exceptions.MlflowException, SQLAlchemyError) as error:
        raise tracking_error(uri, error) from None
    store.engine.dispose()
    remove_encoded_folder(uri)


def _is_half_made(path: Path) -> bool:
    """Return whether MLflow was stopped while it made the tables.

    Raises:
        TrackingConfigError: if there are runs in it all the same.
    """
    with contextlib.closing(sqlite3.connect(path, timeout=_LOCK_SECONDS)) as database:
        database.execute("BEGIN IMMEDIATE")  # finds out whether it can be written
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}

        def count(table: str) -> int:
            query = f"SELECT COUNT(*) FROM {table}"
            return database.execute(query).fetchone()[0] if table in tables else 0

        revisions = (
            []
            if "alembic_version" not in tables
            else list(database.execute("SELECT version_num FROM alembic_version"))
        )
        runs, experiments = count("runs"), count("experiments")
        models = count("registered_models")
        database.rollback()
    empty = not runs and not models and experiments <= 1  # MLflow makes one of its own
    if revisions and not empty:
        return False  # of this version, or of another, about which MLflow speaks
    if empty:
        return not revisions or revisions[0][0] != _newest_revision()
    raise TrackingConfigError(
        f"{path}: half made or damaged (no schema version), with {runs} runs in it; restore a "
        "backup, or move the file away: the next command makes a new one"
    )


def _newest_revision() -> str | None:
    from alembic.script import ScriptDirectory

    folder = Path(load_mlflow().__file__).parent / "store" / "db_migrations"
    return ScriptDirectory(str(folder)).get_current_head()
