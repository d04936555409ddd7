"""Nested runs: one for each trial of a search or training of a comparison, below its run."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from gemix.core.errors import TrackingError
from gemix.tracking.client import load_mlflow
from gemix.tracking.mlflow_errors import translate_mlflow_errors
from gemix.tracking.mlflow_run import Run
from gemix.tracking.transport import resolve_run

log = logging.getLogger("gemix.tracking")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NestedRun:
    """A run that has ended.

    Attributes:
        name: among the runs of its search.
        curve: name and values by step of a metric that was followed; None if none was.
        seconds: that it took.
    """

    name: str
    status: Literal["FINISHED", "FAILED", "KILLED"]
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    seconds: float
    curve: tuple[str, Mapping[int, float]] | None = None


def log_nested_runs(parent: Run, search: str, runs: Sequence[NestedRun]) -> bool:
    """Log runs below another one, but those of this search that are there already.

    Args:
        search: identifies the search or comparison, whatever process goes on with it; any text.

    Returns:
        Whether they are all there; False, with a warning, if the store cannot be reached.
    """
    client = parent.client
    key = hashlib.sha256(search.encode()).hexdigest()  # needs no quotes in a filter
    try:
        with translate_mlflow_errors(parent.tracking_uri):
            parent_id = resolve_run(client, parent.run_id)
            experiment = client.get_run(parent_id).info.experiment_id
            known = {
                found.info.run_name
                for found in client.search_runs(
                    [experiment], f"tags.`gemix.search` = '{key}'", max_results=50_000
                )
            }
            for run in runs:
                if run.name not in known:
                    _log(client, experiment, parent_id, key, run)
    except TrackingError as error:
        log.warning("runs below this one are not logged: %s; the next command logs them", error)
        return False
    return True


def _log(client: Any, experiment: str, parent_id: str, search: str, run: NestedRun) -> None:
    mlflow = load_mlflow()
    entities, names = mlflow.entities, mlflow.utils.mlflow_tags
    now = int(time.time() * 1000)
    # the tag by which a run counts as logged comes last, with all else
    tags = {names.MLFLOW_PARENT_RUN_ID: parent_id, names.MLFLOW_RUN_NAME: run.name}
    start = now - int(1000 * run.seconds)
    created = client.create_run(experiment, start, tags, run.name).info.run_id
    metrics = [entities.Metric(key, value, now, 0) for key, value in run.metrics.items()]
    if run.curve is not None:
        name, values = run.curve
        metrics += [entities.Metric(name, value, now, step) for step, value in values.items()]
    marks = {**run.tags, "gemix.search": search}
    client.log_batch(
        created,
        metrics=metrics,
        params=[entities.Param(key, str(value)) for key, value in run.params.items()],
        tags=[entities.RunTag(key, value) for key, value in marks.items()],
    )
    client.set_terminated(created, run.status, now)
