"""The trainings of a comparison as MLflow runs below that of the comparison."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gemix.comparison.plan import Unit
from gemix.data.image_set import ImageSet
from gemix.evaluation.classification.rates import score
from gemix.io.workspace import Workspace
from gemix.steps.compare.training import Trained
from gemix.tracking.mlflow_run import Run
from gemix.tracking.nested_runs import NestedRun, log_nested_runs


def log_trainings(
    run: Run,
    workspace: Workspace,
    trained: Mapping[Unit, Trained],
    predictions: Mapping[str, np.ndarray],
    test: ImageSet,
    normal: int | None,
) -> None:
    """Log each training of the work directory once, below the comparison that first had it.

    Args:
        predictions: class probabilities of the test images by address, float32 [N, K].
        normal: index of the healthy class; None if there is none.
    """
    nested = []
    for unit, found in trained.items():
        rates: Mapping[str, float] = {}
        if found.failure is None:
            predicted = predictions[found.address].argmax(axis=1)
            rates = score(test.labels, predicted, len(test.classes), normal)
        nested.append(_nested(unit, found, rates))
    log_nested_runs(run, f"compare {workspace.workdir} {test.digest}", nested)


def _nested(unit: Unit, found: Trained, rates: Mapping[str, float]) -> NestedRun:
    params = {
        "method": unit.method,
        "model": unit.model,
        "fraction": unit.fraction,
        "draw": unit.draw,
        "seed": unit.seed,
        "patients": found.patients,
        "real_images": found.real_images,
        "synthetic_images": found.synthetic_images,
    }
    if unit.generator is not None:
        params["generator"] = unit.generator
    metrics = dict(found.scores) | {f"test_{name}": value for name, value in rates.items()}
    metrics |= {"steps": found.steps, "seconds": found.seconds}
    failed = found.failure is not None
    return NestedRun(
        name=f"{unit.name} ({'failed' if failed else found.address[:8]})",
        status="FAILED" if failed else "FINISHED",
        params=params,
        metrics={name: value for name, value in metrics.items() if np.isfinite(value)},
        tags={"reason": found.failure} if found.failure else {},
        seconds=found.seconds,
    )
