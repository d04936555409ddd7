"""Errors of MLflow in words: what passes, what the user corrects, and never a password."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from urllib.parse import quote, unquote

from gemix.core.errors import (
    DiskFullError,
    GemixError,
    StoreAccessError,
    TrackingConfigError,
    TrackingError,
)

_REFUSALS = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}
_DRIVERS = {  # pip names of database drivers, by module
    "psycopg": "'psycopg[binary]'",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "pymysql": "pymysql",
    "pyodbc": "pyodbc",
}
_UNSET = "unset MLFLOW_TRACKING_URI to use an SQLite file in the work directory"


def redact_credentials(text: str, uri: str = "") -> str:
    """Remove user names and passwords of URLs from a text, those of `uri` in any spelling."""
    # an unencoded password may hold slashes
    text = re.sub(r"(?<=://)([^\s/'\"]*|[^\s/'\"@:]*:(?!\d+/)[^\s'\"]*)@", "", text)
    userinfo = uri.rpartition("://")[2].rpartition("@")[0]
    secret = userinfo.partition(":")[2]
    for one in {userinfo, secret, unquote(secret), quote(secret, safe="")}:
        if len(one) > 2:
            text = text.replace(one, "***")
    return text


def is_refusal(error: BaseException, uri: str) -> bool:
    """Return whether the store has looked at the request and will never accept it."""
    from mlflow.exceptions import MlflowException, RestException

    # a proxy's page in place of the server says nothing about the request
    answered = isinstance(error, MlflowException if not uri.startswith("http") else RestException)
    return answered and error.error_code in _REFUSALS and not _database_problem(str(error), "")


@contextlib.contextmanager
def translate_mlflow_errors(uri: str) -> Iterator[None]:
    """Turn errors of MLflow and its database into one that says what helps.

    Raises:
        TrackingError: if the server is away or hangs, or the database is locked.
        TrackingConfigError: if the user has to correct something.
        DiskFullError, StoreAccessError: if the database or an artifact cannot be written.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        raise tracking_error(uri, error) from None


def tracking_error(uri: str, error: BaseException) -> GemixError:
    """Return the error to raise for one of MLflow."""
    where = f"MLflow store {redact_credentials(uri)}"
    text = redact_credentials(str(error) or type(error).__name__, uri)
    reason = text.splitlines()[0]
    code = getattr(error, "error_code", "")
    if isinstance(error, ImportError) and error.name:
        package = _DRIVERS.get(error.name, error.name)
        return TrackingConfigError(
            f"{where}: the Python package {error.name} is not installed; run pip install {package}"
        )
    if found := _database_problem(text, uri):
        return found
    if isinstance(error, OSError) and error.errno is not None and not uri.startswith("http"):
        return StoreAccessError(f"{where}: {reason}; make it writable or choose another --workdir")
    if "out-of-date database schema" in text:
        return TrackingConfigError(
            f"{where}: made by another version of MLflow; back it up and run "
            f"mlflow db upgrade '{redact_credentials(uri)}'"
        )
    if "Invalid Host header" in text:
        return TrackingConfigError(
            f"{where}: the server refuses this host name; start it with --allowed-hosts naming it"
        )
    denied = code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED")
    if denied or re.search(r"error code 40[13]\b", text):
        return TrackingConfigError(
            f"{where}: access denied ({reason}); set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to valid credentials"
        )
    if not re.match(r"https?://", uri):
        scheme = uri.partition("://")[0]
        if not re.match(r"(sqlite|postgresql|mysql|mssql)(\+|$)", scheme):
            return TrackingConfigError(
                f"{where}: {reason}; set MLFLOW_TRACKING_URI to http://..., sqlite:////... or "
                f"postgresql://..., or {_UNSET}"
            )
    return TrackingError(
        f"{where}: {reason}; check that the server runs and that MLFLOW_TRACKING_URI is right, "
        f"or {_UNSET}"
    )


def _database_problem(text: str, uri: str) -> GemixError | None:
    """Return the error for a text of SQLite or the operating system, None for other texts."""
    path = unquote(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else uri
    folder = path.rpartition("/")[0] if uri.startswith("sqlite:///") else redact_credentials(uri)
    if "disk is full" in text or "No space left" in text or "Disk quota" in text:
        return DiskFullError(
            f"no space left on {folder}: MLflow cannot write; make room and run the same command "
            "again"
        )
    if "readonly database" in text or "Read-only file system" in text:
        return StoreAccessError(
            f"{path}: read-only; make it and its folder writable or choose another --workdir"
        )
    if "database is locked" in text:
        return TrackingError(
            f"{path}: locked by another program; close it (`fuser '{path}'` names it) and run the "
            "same command again"
        )
    if "file is not a database" in text or "malformed" in text:
        return TrackingConfigError(
            f"{path}: damaged, or not an SQLite database; restore a backup, or move the file away: "
            "the next command makes a new one, without the runs so far"
        )
    return None
