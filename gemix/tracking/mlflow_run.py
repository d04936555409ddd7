"""MLflow: one run a job, written through a client that any process can hold.

Only :class:`mlflow.MlflowClient` is used, never MLflow's global active run, so that the processes
of a distributed training write to one run and several runs can be open in one process. The store
is ``MLFLOW_TRACKING_URI``, else an SQLite file in the work directory. SQLite wants all writers on
one machine: a cluster of several needs a tracking server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import math
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import gemix
from gemix.config import PipelineConfig
from gemix.core.errors import GemixError
from gemix.io.storage import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PARAM_CHARACTERS = 500  # the smallest limit among MLflow servers in use
_BATCH = 100  # params or tags in one request
_DIGEST_CHARACTERS = 36  # of a dataset; longer digests are cut, the tag has all of it
_SERVER_SECONDS = 10


def _mlflow() -> ModuleType:
    """MLflow, which takes two seconds to import: processes that log nothing do without."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported
    # a new database is no news to the reader of a job's output
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    import mlflow.entities
    import mlflow.exceptions
    import mlflow.utils.mlflow_tags

    return mlflow


@dataclasses.dataclass(frozen=True)
class Run:
    """One MLflow run. Picklable: send it to a worker process and log from there.

    Every method raises :class:`GemixError` where the store cannot be reached or refuses.
    """

    tracking_uri: str
    run_id: str
    experiment: str

    @property
    def client(self) -> MlflowClient:
        """A client of the run's store."""
        return _mlflow().MlflowClient(self.tracking_uri)

    def log_metrics(self, metrics: Mapping[str, float | None], step: int = 0) -> None:
        """Logs numbers at a step; None and NaN are left out."""
        now = int(time.time() * 1000)
        entities = [
            _mlflow().entities.Metric(name, float(value), now, step)
            for name, value in metrics.items()
            if value is not None and not math.isnan(value)
        ]
        with reaching(self.tracking_uri):
            self.client.log_batch(self.run_id, metrics=entities)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs settings, nested mappings as dotted names; long values are cut."""
        param = _mlflow().entities.Param
        entities = [param(name, value) for name, value in _flatten(params).items()]
        with reaching(self.tracking_uri):
            for start in range(0, len(entities), _BATCH):
                self.client.log_batch(self.run_id, params=entities[start : start + _BATCH])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags, replacing those of the same name."""
        with reaching(self.tracking_uri):
            entities = [_mlflow().entities.RunTag(name, str(value)) for name, value in tags.items()]
            self.client.log_batch(self.run_id, tags=entities)

    def log_text(self, text: str, name: str) -> None:
        """Writes a text artifact; `name` may have folders."""
        self.log_bytes(text.encode(), name)

    def log_bytes(self, data: bytes, name: str) -> None:
        """Writes an artifact; `name` may have folders: ``samples/000012.png``."""
        with reaching(self.tracking_uri):
            self.client.log_stream(self.run_id, io.BytesIO(data), name)

    def log_dataset(self, digest: str, name: str, context: str) -> None:
        """Notes the content that the run read.

        Args:
            digest: of the content, as the manifest has it.
            name: what the set is called, such as ``real``.
            context: what it was read for, such as ``training``.
        """
        mlflow = _mlflow()
        of, tags = mlflow.entities, mlflow.utils.mlflow_tags
        source = json.dumps({"digest": digest})
        dataset = of.Dataset(name, digest[:_DIGEST_CHARACTERS], "gemix", source)
        inputs = [of.DatasetInput(dataset, [of.InputTag(tags.MLFLOW_DATASET_CONTEXT, context)])]
        with reaching(self.tracking_uri):
            self.client.log_inputs(self.run_id, inputs)
        self.set_tags({f"digest.{name}.{context}": digest})


@contextlib.contextmanager
def start_run(config: PipelineConfig, workdir: str, job: str) -> Iterator[Run]:
    """Opens the run of one job, and closes it: FINISHED, FAILED or (on Ctrl-C) KILLED.

    The run begins with the configuration as parameters and as the artifact ``config.yaml``, the
    version of gemix and the git commit of its checkout, if it is one.

    Args:
        config: the resolved configuration; `config.tracking.experiment` names the experiment.
        workdir: the work directory; the default store lies in it.
        job: name of the run.

    Raises:
        GemixError: if the store cannot be reached, or there is no place for one.
    """
    uri = tracking_uri(workdir)
    _knock(uri)
    mlflow = _mlflow()
    status, names = mlflow.entities.RunStatus, mlflow.utils.mlflow_tags
    with reaching(uri):
        # also brings a new database to its schema, before several processes open it at once
        client = mlflow.MlflowClient(uri)
        experiment = _experiment(client, config.tracking.experiment, workdir)
        created = client.create_run(experiment, run_name=job, tags={names.MLFLOW_RUN_NAME: job})
    run = Run(uri, created.info.run_id, config.tracking.experiment)
    try:
        tags = {"job": job, "workdir": workdir, "gemix.version": gemix.__version__}
        commit = git_commit()
        run.set_tags(tags | ({names.MLFLOW_GIT_COMMIT: commit} if commit else {}))
        settings = config.to_mapping()
        settings.pop("about")
        run.log_params(settings)
        run.log_text(config.to_yaml(), "config.yaml")
        yield run
    except BaseException as error:
        end = status.KILLED if isinstance(error, KeyboardInterrupt) else status.FAILED
        # the first error is the one to tell
        with contextlib.suppress(mlflow.exceptions.MlflowException):
            client.set_terminated(run.run_id, status.to_string(end))
        raise
    with reaching(uri):
        client.set_terminated(run.run_id, status.to_string(status.FINISHED))


def tracking_uri(workdir: str) -> str:
    """``MLFLOW_TRACKING_URI``, else an SQLite file in the local work directory.

    Raises:
        GemixError: if neither is possible.
    """
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    if workdir.startswith("s3://"):
        raise GemixError(
            f"{workdir}: an MLflow database cannot lie in S3; set MLFLOW_TRACKING_URI to a "
            "tracking server (http://...) or to a local database (sqlite:////...)"
        )
    folder = Path(workdir).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"{folder}: cannot be made ({error.strerror}); choose another --workdir"
        raise GemixError(text) from error
    return f"sqlite:///{folder}/mlflow.db"


def git_commit() -> str | None:
    """The commit of the checkout that gemix is imported from; None outside of one."""
    command = ["git", "-C", str(Path(gemix.__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _experiment(client: MlflowClient, name: str, workdir: str) -> str:
    """The id of the experiment, created where it is new."""
    if found := client.get_experiment_by_name(name):
        return found.experiment_id
    # a server knows where its artifacts go; beside a database MLflow would take the current
    # directory, which differs between processes
    server = client.tracking_uri.startswith("http")
    artifacts = None if server else _artifacts(workdir)
    try:
        return client.create_experiment(name, artifact_location=artifacts)
    except _mlflow().exceptions.MlflowException:
        # another job may have created it in between
        if found := client.get_experiment_by_name(name):
            return found.experiment_id
        raise


def _artifacts(workdir: str) -> str:
    store = Store(workdir) / "mlartifacts"
    return Path(store.url).as_uri() if store.is_local else store.url


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names and text, the empty ones as ``null`` and ``[]``."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            flat[prefix + name] = text[:_PARAM_CHARACTERS]
    return flat


def _knock(uri: str) -> None:
    """Asks a server once: MLflow itself would ask for minutes before it gives up."""
    if not uri.startswith("http"):
        return
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_SERVER_SECONDS).close()
    except urllib.error.HTTPError:
        return  # somebody answers
    except (OSError, ValueError) as error:
        raise _unreachable(uri, error) from error


@contextlib.contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turns MLflow's errors into one that says what to do."""
    try:
        yield
    except _mlflow().exceptions.MlflowException as error:
        raise _unreachable(uri, error) from error


def _unreachable(uri: str, error: Exception) -> GemixError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return GemixError(
        f"MLflow store {uri}: {reason}; check MLFLOW_TRACKING_URI, the server and its "
        "--allowed-hosts, or unset it to use an SQLite file in the work directory"
    )
