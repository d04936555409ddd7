"""What follows when all trials of a sweep have ended: MLflow runs, the winner, ``sweep.json``."""

from __future__ import annotations

import json
from typing import Any

from gemix.io.results import SWEEP
from gemix.steps.runtime.executor import Executor, LocalExecutor
from gemix.steps.sweep.confirm import confirm
from gemix.steps.sweep.opening import Sweep
from gemix.steps.sweep.results import write_results
from gemix.sweep.records import TrialRecord
from gemix.tracking import mlflow_run as tracking
from gemix.tracking.nested_runs import NestedRun, log_nested_runs


def finish_sweep(sweep: Sweep, *, executor: Executor | None = None) -> dict[str, Any]:
    """Log the trials below a run of the sweep, choose and test the winner, write ``sweep.json``.

    Returns:
        The content of the file.

    Raises:
        DataError: as :func:`gemix.steps.sweep.confirm.confirm` raises it.
    """
    executor = executor or LocalExecutor()
    with tracking.start_run(sweep.config, sweep.workspace.workdir, "sweep") as run:
        curves = dict(sweep.study.curves())
        nested = [
            _nested(record, curves.get(record.number, {}))
            for record in sweep.study.records()
            if record.counts
        ]
        log_nested_runs(run, sweep.study.uid, nested)
        write_results(sweep, None)  # whatever happens to the confirmation, the search is there
        confirmed = confirm(sweep, run, executor)
        results = write_results(sweep, confirmed)
        run.log_text(json.dumps(results, indent=1), SWEEP)
    return results


def _nested(record: TrialRecord, curve: dict[int, float]) -> NestedRun:
    metrics: dict[str, float] = {}
    if record.seed_scores:
        scores = record.scores
        metrics = {"val_macro_f2": scores.macro_f2, "val_fnr": scores.fnr}
        if scores.missed_disease_rate is not None:
            metrics["val_missed_disease_rate"] = scores.missed_disease_rate
    metrics |= {f"constraint/{name}": value for name, value in record.constraints.items()}
    tags = {"trial": str(record.number), "state": record.state, "feasible": str(record.is_feasible)}
    tags |= {"reason": record.reason} if record.reason else {}
    return NestedRun(
        name=f"trial {record.number}" + (f" ({record.name})" if record.name else ""),
        status={"failed": "FAILED", "pruned": "KILLED"}.get(record.state, "FINISHED"),
        params=record.params,
        metrics=metrics,
        curve=("macro_f2", curve),
        tags=tags,
        seconds=record.seconds or 0.0,
    )
