"""The database of a study: SQLite in the work directory, or any that a URL names."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from gemix.core.errors import ConfigError, GemixError, StoreError
from gemix.io.storage import Store
from gemix.sweep.config import without_password

log = logging.getLogger("gemix.sweep")

T = TypeVar("T")

FILE = "study.db"  # in the sweep's directory
LOCK_SECONDS = 10.0  # to wait for a lock of SQLite
RETRY_SECONDS = 60.0  # to go on trying while the database is away
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0


def database_url(storage: str | None, directory: Store) -> str:
    """Return the SQLAlchemy URL of the study's database.

    Args:
        storage: the setting ``sweep.storage``.
        directory: of the sweep.

    Raises:
        ConfigError: if the database is to lie in a bucket.
    """
    if storage is not None:
        return storage
    if not directory.is_local:
        raise ConfigError(
            f"sweep.storage=null: SQLite cannot lie in {directory.url}; set it to the URL of a "
            "PostgreSQL database, or to sqlite:////<path> on a disk of the driver's machine"
        )
    return f"sqlite:///{directory.path(FILE)}"


def connect(url: str) -> RDBStorage:
    """Open the database; make its tables where there are none.

    Raises:
        ConfigError: for a URL that is none, or whose driver is not installed.
        StoreError: if it does not answer.
        GemixError: if it holds the tables of another version of Optuna, or something else.
    """
    name = without_password(url)
    arguments: dict[str, object] = {"pool_pre_ping": True}
    if url.startswith("sqlite:"):
        arguments["connect_args"] = {"timeout": LOCK_SECONDS}
    try:
        return RDBStorage(url, engine_kwargs=arguments)
    except ImportError as error:  # optuna's own, or the driver's
        raise ConfigError(
            f"sweep.storage={name}: its driver is not installed ({_short(error)}); for PostgreSQL, "
            "pip install psycopg2-binary (the extra `postgres` of gemix)"
        ) from error
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(f"sweep.storage={name}: no SQLAlchemy URL ({_short(error)})") from error
    except (SQLAlchemyError, StorageInternalError) as error:
        raise StoreError(
            f"sweep.storage {name}: the database does not answer ({_short(error)}); start it, or "
            "correct sweep.storage"
        ) from error
    except RuntimeError as error:
        raise GemixError(f"sweep.storage {name}: cannot be used ({_short(error)})") from error


class Retrying:
    """Calls of a database that are tried again while it is away.

    Args:
        name: of the database, for messages.
        seconds: to go on trying.
    """

    def __init__(self, name: str, seconds: float = RETRY_SECONDS):
        self.name, self.seconds = name, seconds

    def __call__(self, operation: Callable[[], T]) -> T:
        """Return the operation's result; it must be one that may be done twice.

        Raises:
            StoreError: if the database stays away.
        """
        started, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            try:
                return operation()
            except (DBAPIError, StorageInternalError) as error:
                away = time.monotonic() - started
                if away + pause > self.seconds:
                    raise StoreError(
                        f"sweep.storage {self.name}: away for {away:.0f} s ({_short(error)}); the "
                        "same command goes on when it is back, with what the trials have finished"
                    ) from error
                log.warning("%s does not answer, trying again: %s", self.name, _short(error))
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _short(error: BaseException) -> str:
    """Return the first line of what SQLAlchemy, or the database below it, says."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    text = str(getattr(cause, "orig", None) or cause or error)
    return text.strip().splitlines()[0][:200] if text.strip() else type(error).__name__
