"""The requests to MLflow that make a run and log to it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gemix.core.errors import GemixError, TrackingConfigError, TrackingError
from gemix.io.storage import Store
from gemix.tracking.client import load_mlflow, open_client
from gemix.tracking.database import ARTIFACTS
from gemix.tracking.mlflow_errors import is_refusal, redact_credentials, tracking_error
from gemix.tracking.spool import Operation

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BATCH = 100  # params or tags in one request
_METRICS = 1000  # metrics in one request
_DIGEST_CHARACTERS = 36  # of a dataset; longer digests are cut, the tag has all of it
OFFLINE = "offline-"  # begins the id of a run that was started while the server was away
_OFFLINE_TAG = "gemix.offline_id"


class Transport:
    """The requests to MLflow; used by one thread."""

    def __init__(self, uri: str):
        self.uri = uri
        self._client: MlflowClient | None = None
        self._made: dict[str, str] = {}  # ids of runs that were started offline

    def send(self, run_id: str, operations: Sequence[Operation]) -> list[tuple[Operation, str]]:
        """Send operations in their order, and return those that the store refused with the reason.

        Raises:
            GemixError: if the store is away.
        """
        refused = []
        for group in _batches(operations):
            try:
                self._send(run_id, group)
            except GemixError:
                raise
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
        client, of, first = self._client, mlflow.entities, group[0]
        if first["op"] == "create":
            if find_run(client, run_id) is None:
                create_run(client, run_id=run_id, **first["run"])
            return
        if run_id.startswith(OFFLINE):
            if run_id not in self._made:
                self._made[run_id] = resolve_run(client, run_id)
            run_id = self._made[run_id]
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


def create_run(
    client: MlflowClient, *, experiment: str, job: str, workdir: str, time: int, run_id: str = ""
) -> str:
    """Create a run, and its experiment where it is new.

    Args:
        time: of its start, in ms since 1970.
        run_id: its id in the spool, if it was started while the server was away.

    Returns:
        The run's id in MLflow.

    Raises:
        TrackingConfigError: if the experiment is deleted.
    """
    tags = {load_mlflow().utils.mlflow_tags.MLFLOW_RUN_NAME: job}
    if run_id:
        tags[_OFFLINE_TAG] = run_id
    created = client.create_run(_experiment(client, experiment, workdir), time, tags, job)
    return created.info.run_id


def find_run(client: MlflowClient, run_id: str) -> str | None:
    """Return the id in MLflow of a run that was started offline; None if it is not there yet."""
    experiments = [one.experiment_id for one in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`{_OFFLINE_TAG}` = '{run_id}'")
    return found[0].info.run_id if found else None


def resolve_run(client: MlflowClient, run_id: str) -> str:
    """Return the id in MLflow of any run.

    Raises:
        TrackingError: if it was started offline and is not there yet.
    """
    found = find_run(client, run_id) if run_id.startswith(OFFLINE) else run_id
    if found is None:
        uri = redact_credentials(client.tracking_uri)
        raise TrackingError(
            f"MLflow store {uri}: run {run_id} was started while the server was away and is not "
            "sent yet; run the same command again"
        )
    return found


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
