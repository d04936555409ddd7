"""One MLflow run a job, written by any of its processes, through outages of the server.

Only :class:`mlflow.MlflowClient` is used, never MLflow's global active run, so that the processes
of a distributed training write to one run and several runs can be open in one process. The store
is ``MLFLOW_TRACKING_URI``, else an SQLite file in the work directory. SQLite wants all writers on
one machine: a cluster of several needs a tracking server.

Starting a run needs the store. After that nothing waits for it or fails with it
(:mod:`gemix.tracking.spool`).
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import dataclasses
import json
import logging
import math
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import gemix
from gemix.config import PipelineConfig
from gemix.core.environment import git_commit
from gemix.core.errors import TrackingError
from gemix.io.storage import Store
from gemix.tracking.client import (
    check_health,
    database_path,
    load_mlflow,
    open_client,
    tracking_uri,
)
from gemix.tracking.database import prepare_database, relocate_artifacts
from gemix.tracking.mlflow_errors import (
    redact_credentials,
    translate_mlflow_errors,
)
from gemix.tracking.spool import SPOOL, Operation, Sender
from gemix.tracking.transport import OFFLINE, Transport, create_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

_PARAM_CHARACTERS = 500  # the smallest limit among MLflow servers in use
ANSWERED = "mlflow.json"  # in the work directory: the store that holds its runs
_CLOSE_SECONDS = 15.0  # to wait at the end of a run for what is unsent
_INTERRUPTED_SECONDS = 3.0  # the same after Ctrl-C

_senders: dict[tuple[int, str, str], Sender] = {}
_senders_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Run:
    """One MLflow run. Picklable: send it to a worker process and log from there.

    The methods return at once and never raise for the store's sake: a thread sends what they log,
    what cannot be sent stays in the work directory.

    Attributes:
        tracking_uri: the store, with its credentials.
        workdir: the work directory.
    """

    tracking_uri: str = dataclasses.field(repr=False)
    run_id: str
    experiment: str
    workdir: str

    @property
    def client(self) -> MlflowClient:
        """A client of the run's store."""
        return open_client(self.tracking_uri)

    def log_metrics(self, metrics: Mapping[str, float | None], step: int = 0) -> None:
        """Log numbers at a step; None and NaN are left out."""
        now = int(time.time() * 1000)
        found = [
            (name, float(value), now, step)
            for name, value in metrics.items()
            if value is not None and not math.isnan(value)
        ]
        if found:
            self._log({"op": "metrics", "metrics": found})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log settings, nested mappings as dotted names; long values are cut."""
        self._log({"op": "params", "params": _flatten(params)})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, replacing those of the same name."""
        if tags:
            self._log({"op": "tags", "tags": {name: str(value) for name, value in tags.items()}})

    def log_text(self, text: str, name: str) -> None:
        """Write a text artifact; `name` may have folders."""
        self.log_bytes(text.encode(), name)

    def log_bytes(self, data: bytes, name: str) -> None:
        """Write an artifact; `name` may have folders: ``samples/000012.png``."""
        self._log({"op": "artifact", "name": name, "data": base64.b64encode(data).decode()})

    def log_dataset(self, digest: str, name: str, context: str) -> None:
        """Record the content that the run read.

        Args:
            digest: of the content, as the manifest has it.
            name: what the set is called, such as ``real``.
            context: what it was read for, such as ``training``.
        """
        self._log({"op": "dataset", "digest": digest, "name": name, "context": context})
        self.set_tags({f"digest.{name}.{context}": digest})

    def flush(self, seconds: float = _CLOSE_SECONDS) -> int:
        """Send what this process has logged, for some seconds at most.

        A worker process need not call it where the work directory is local: the process that
        started the run sends what a worker leaves.

        Returns:
            The number of entries that stay in the work directory.
        """
        with _senders_lock:
            sender = _senders.pop(self._key, None)
        return sender.close(seconds) if sender else 0

    @property
    def _key(self) -> tuple[int, str, str]:
        return os.getpid(), self.workdir, self.run_id

    def _log(self, operation: Operation) -> None:
        self._sender().append(operation)

    def _sender(self, owner: bool = False) -> Sender:
        with _senders_lock:
            sender = _senders.get(self._key)
            if sender is None:
                target = redact_credentials(self.tracking_uri)
                folder = Store(self.workdir) / SPOOL
                send = Transport(self.tracking_uri).send
                sender = Sender(folder, target, self.run_id, send, owner)
                _senders[self._key] = sender
                atexit.register(self.flush, _INTERRUPTED_SECONDS)
            return sender


@contextlib.contextmanager
def start_run(config: PipelineConfig, workdir: str, job: str) -> Iterator[Run]:
    """Open the run of one job, and close it: FINISHED, FAILED or (on Ctrl-C) KILLED.

    The run begins with the configuration as parameters and as the artifact ``config.yaml``, the
    version of gemix and the git commit of its checkout, if it is one. What earlier runs in the
    work directory could not send is sent in the background.

    Args:
        config: the resolved configuration; `config.tracking.experiment` names the experiment.
        workdir: the work directory; the default store lies in it.
        job: name of the run.

    Raises:
        TrackingError: if the store cannot be reached, and never was for this work directory.
        TrackingConfigError: if it cannot be used as it is configured.
        DiskFullError, StoreAccessError: if its database cannot be written.
    """
    run = _open_run(tracking_uri(workdir), config.tracking.experiment, workdir, job)
    run._sender().adopt_others()
    mlflow = load_mlflow()
    status, names = mlflow.entities.RunStatus, mlflow.utils.mlflow_tags
    end = status.FAILED
    try:
        tags = {"job": job, "workdir": workdir, "gemix.version": gemix.__version__}
        commit = git_commit()
        run.set_tags(tags | ({names.MLFLOW_GIT_COMMIT: commit} if commit else {}))
        settings = config.to_mapping()
        settings.pop("about")
        run.log_params(settings)
        run.log_text(config.to_yaml(), "config.yaml")
        yield run
        end = status.FINISHED
    except (KeyboardInterrupt, SystemExit):
        end = status.KILLED
        raise
    finally:
        now = int(time.time() * 1000)
        run._log({"op": "end", "status": status.to_string(end), "time": now})
        left = run.flush(_INTERRUPTED_SECONDS if end == status.KILLED else _CLOSE_SECONDS)
        if left:
            log.warning(
                "MLflow store %s: %d entries of this run are kept in %s/%s; the next command on "
                "this work directory sends them",
                *(redact_credentials(run.tracking_uri), left, workdir, SPOOL),
            )


def _open_run(uri: str, experiment: str, workdir: str, job: str) -> Run:
    """Create a run in the store, or in the spool if a store that has answered before is away."""
    wanted = {
        "experiment": experiment,
        "job": job,
        "workdir": workdir,
        "time": int(time.time() * 1000),
    }
    store, target = Store(workdir), {"tracking_uri": redact_credentials(uri)}
    path = database_path(uri)
    try:
        check_health(uri)
        if path is not None:
            prepare_database(path)
            if str(path.parent) == store.url:
                relocate_artifacts(path)
        load_mlflow()
        with translate_mlflow_errors(uri):
            run_id = create_run(open_client(uri), **wanted)
    except TrackingError as error:
        if not store.exists(ANSWERED) or store.read_json(ANSWERED) != target:
            raise
        log.warning("%s. The step starts without it", str(error).split("; ")[0])
        run = Run(uri, f"{OFFLINE}{secrets.token_hex(8)}", experiment, workdir)
        run._sender(owner=True)
        run._log({"op": "create", "run": wanted})
        return run
    if path is None and not (store.exists(ANSWERED) and store.read_json(ANSWERED) == target):
        store.write_json(ANSWERED, target)
    run = Run(uri, run_id, experiment, workdir)
    run._sender(owner=True)
    return run


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as dotted names and text, the empty ones as ``null`` and ``[]``."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            flat[prefix + name] = text[:_PARAM_CHARACTERS]
    return flat
