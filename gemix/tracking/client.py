"""Connections to MLflow: which store, how long to wait for it, and is it there."""

from __future__ import annotations

import base64
import contextlib
import http.client
import logging
import os
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from gemix.core.errors import StoreAccessError, TrackingConfigError
from gemix.io.storage import Store
from gemix.tracking.mlflow_errors import redact_credentials, tracking_error

if TYPE_CHECKING:
    from mlflow import MlflowClient

_HEALTH_SECONDS = 10
# read by MLflow at each request; its own limits add up to minutes
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",  # seconds without a byte
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}


def load_mlflow() -> ModuleType:
    """Return MLflow, set up; its import takes two seconds, which processes without runs save."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    # its tracebacks and notes on new databases; errors are raised all the same
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # it tells its steps
    import mlflow.entities
    import mlflow.exceptions
    import mlflow.utils.mlflow_tags

    return mlflow


def open_client(uri: str) -> MlflowClient:
    """Return a client of the store; a local database must have been prepared."""
    client = load_mlflow().MlflowClient(uri)
    remove_encoded_folder(uri)
    return client


def remove_encoded_folder(uri: str) -> None:
    """Remove the empty folder that MLflow makes of a database's URI without decoding it."""
    path = database_path(uri)
    folder = os.path.dirname(uri.removeprefix("sqlite:///"))
    if path is not None and folder != str(path.parent):
        with contextlib.suppress(OSError):
            os.removedirs(folder)


def tracking_uri(workdir: str) -> str:
    """Return ``MLFLOW_TRACKING_URI``, else that of an SQLite file in the local work directory.

    Raises:
        TrackingConfigError: if neither is possible.
        StoreAccessError: if the work directory cannot be made.
    """
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    if workdir.startswith("s3://"):
        raise TrackingConfigError(
            f"{workdir}: an MLflow database cannot lie in S3; set MLFLOW_TRACKING_URI to a "
            "tracking server (http://...) or to a local database (sqlite:////...)"
        )
    folder = Path(Store(workdir).url)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreAccessError(
            f"{folder}: cannot be made ({error.strerror}); choose another --workdir"
        ) from error
    return database_uri(folder / "mlflow.db")


def database_uri(path: Path) -> str:
    """Return the URI of an SQLite file; SQLAlchemy decodes percent signs and splits at ``?``."""
    return f"sqlite:///{quote(str(path), safe='/ ')}"


def database_path(uri: str) -> Path | None:
    """Return the file of an SQLite URI, None for other stores."""
    name = uri.removeprefix("sqlite:///").partition("?")[0]
    return Path(unquote(name)).absolute() if uri.startswith("sqlite:///") and name else None


def check_health(uri: str) -> None:
    """Ask a server once whether it is there.

    Raises:
        TrackingError, TrackingConfigError: if nobody answers, or it refuses the credentials.
    """
    if not uri.startswith("http"):
        return
    try:
        parts = urlsplit(uri)
        address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        request = urllib.request.Request(f"{address.rstrip('/')}/health")
        if parts.username:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            request.add_header("Authorization", f"Basic {base64.b64encode(user).decode()}")
        urllib.request.urlopen(request, timeout=_HEALTH_SECONDS).close()
    except urllib.error.HTTPError:
        return  # it is there; the first request of MLflow says what is wrong
    except (http.client.InvalidURL, ValueError):
        raise TrackingConfigError(
            f"MLflow store {redact_credentials(uri)}: not a URL; MLFLOW_TRACKING_URI is "
            "http://host:port, with special characters of a user name or password "
            "percent-encoded (/ is %2F)"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise tracking_error(uri, error) from None
