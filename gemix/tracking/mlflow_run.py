"""One MLflow run a job, written by any of its processes, through outages of the server.

Only :class:`mlflow.MlflowClient` is used, never MLflow's global active run, so that the processes
of a distributed training write to one run and several runs can be open in one process. The store
is ``MLFLOW_TRACKING_URI``, else an SQLite file in the work directory. SQLite wants all writers on
one machine: a cluster of several needs a tracking server.

Starting a run needs the store. After that nothing waits for it or fails with it
(:mod:`gemix.tracking.spool`).
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import logging
import math
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gemix
from gemix.config import PipelineConfig
from gemix.core.errors import TrackingConfigError
from gemix.io.storage import Store
from gemix.tracking.client import (
    check_health,
    database_path,
    load_mlflow,
    open_client,
    tracking_uri,
)
from gemix.tracking.database import ARTIFACTS, prepare_database, relocate_artifacts
from gemix.tracking.mlflow_errors import (
    is_refusal,
    redact_credentials,
    tracking_error,
    translate_mlflow_errors,
)
from gemix.tracking.spool import SPOOL, Operation, Sender

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

_PARAM_CHARACTERS = 500  # the smallest limit among MLflow servers in use
_BATCH = 100  # params or tags in one request
_METRICS = 1000  # metrics in one request
_DIGEST_CHARACTERS = 36  # of a dataset; longer digests are cut, the tag has all of it
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

    def _sender(self) -> Sender:
        with _senders_lock:
            sender = _senders.get(self._key)
            if sender is None:
                target = redact_credentials(self.tracking_uri)
                folder = Store(self.workdir) / SPOOL
                sender = Sender(folder, target, self.run_id, _Transport(self.tracking_uri).send)
                _senders[self._key] = sender
            return sender


class _Transport:
    """The requests to MLflow; used by one thread."""

    def __init__(self, uri: str):
        self.uri = uri
        self._client: MlflowClient | None = None

    def send(self, run_id: str, operations: Sequence[Operation]) -> list[tuple[Operation, str]]:
        """Send operations in their order, and return those that the store refused with the reason.

        Raises:
            GemixError: if the store is away.
        """
        refused = []
        for group in _batches(operations):
            try:
                self._send(run_id, group)
            except Exception as error:
                if not is_refusal(error, self.uri):
                    raise tracking_error(self.uri, error) from None
                if len(group) > 1:  # one may be to blame
                    for operation in group:
                        refused += self.send(run_id, [operation])
                else:
                    refused.append((group[0], str(tracking_error(self.uri, error)).split("; ")[0]))
        return refused

    def _send(self, run_id: str, group: Sequence[Operation]) -> None:
        mlflow = load_mlflow()
        if self._client is None:
            self._client = open_client(self.uri)
        client, of = self._client, mlflow.entities
        first = group[0]
        match first["op"]:
            case "metrics":
                points = [of.Metric(*point) for one in group for point in one["metrics"]]
                for start in range(0, len(points), _METRICS):
                    client.log_batch(run_id, metrics=points[start : start + _METRICS])
            case "params":
                params = [of.Param(name, value) for name, value in first["params"].items()]
                for start in range(0, len(params), _BATCH):
                    client.log_batch(run_id, params=params[start : start + _BATCH])
            case "tags":
                tags = [of.RunTag(name, value) for name, value in first["tags"].items()]
                client.log_batch(run_id, tags=tags)
            case "artifact":
                data = io.BytesIO(base64.b64decode(first["data"]))
                client.log_stream(run_id, data, first["name"])
            case "dataset":
                digest, context = first["digest"], mlflow.utils.mlflow_tags.MLFLOW_DATASET_CONTEXT
                source = json.dumps({"digest": digest})
                cut = digest[:_DIGEST_CHARACTERS]
                dataset = of.Dataset(first["name"], cut, "gemix", source)
                tag = of.InputTag(context, first["context"])
                client.log_inputs(run_id, [of.DatasetInput(dataset, [tag])])
            case "end":
                client.set_terminated(run_id, first["status"], first["time"])


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
        TrackingError: if the store cannot be reached now.
        TrackingConfigError: if it cannot be used as it is configured.
        DiskFullError, StoreAccessError: if its database cannot be written.
    """
    uri = tracking_uri(workdir)
    check_health(uri)
    path = database_path(uri)
    if path is not None:
        prepare_database(path)
        if str(path.parent) == Store(workdir).url:
            relocate_artifacts(path)
    mlflow = load_mlflow()
    status, names = mlflow.entities.RunStatus, mlflow.utils.mlflow_tags
    with translate_mlflow_errors(uri):
        client = open_client(uri)
        experiment = _experiment(client, config.tracking.experiment, workdir)
        created = client.create_run(experiment, run_name=job, tags={names.MLFLOW_RUN_NAME: job})
    run = Run(uri, created.info.run_id, config.tracking.experiment, workdir)
    run._sender().adopt_others()
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
            logger.warning(
                "MLflow store %s: %d entries of this run are kept in %s/%s; the next command on "
                "this work directory sends them",
                *(redact_credentials(uri), left, workdir, SPOOL),
            )


def git_commit() -> str | None:
    """Return the commit of the checkout that gemix is imported from; None outside of one."""
    command = ["git", "-C", str(Path(gemix.__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _experiment(client: MlflowClient, name: str, workdir: str) -> str:
    """Return the id of the experiment, created where it is new.

    Raises:
        TrackingConfigError: if it is deleted.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        # a server knows where its artifacts go; beside a database MLflow would take the current
        # directory, which differs between processes
        server = client.tracking_uri.startswith("http")
        artifacts = None if server else _artifacts(workdir)
        try:
            return client.create_experiment(name, artifact_location=artifacts)
        except load_mlflow().exceptions.MlflowException:
            # another job may have created it in between
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        uri = redact_credentials(client.tracking_uri)
        raise TrackingConfigError(
            f"MLflow store {uri}: the experiment {name!r} is deleted; set tracking.experiment to "
            f"another name, or run MLFLOW_TRACKING_URI='{uri}' mlflow experiments restore "
            f"--experiment-id {found.experiment_id}"
        )
    return found.experiment_id


def _artifacts(workdir: str) -> str:
    store = Store(workdir) / ARTIFACTS
    return Path(store.url).as_uri() if store.is_local else store.url


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


def _batches(operations: Sequence[Operation]) -> Iterator[list[Operation]]:
    """Group neighbouring metrics, which can be sent together."""
    group: list[Operation] = []
    for operation in operations:
        if group and not (operation["op"] == group[0]["op"] == "metrics"):
            yield group
            group = []
        group.append(operation)
    if group:
        yield group
