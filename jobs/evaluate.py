"""Evaluate every classifier once on the test set; register the best."""

from __future__ import annotations

import sys

from jobs._runtime.command import Command, Request
from jobs._runtime.ray_executor import RayExecutor


def _run(request: Request) -> None:
    from gemix.io.results import BelowReal
    from gemix.steps.evaluate import evaluate

    evaluation = evaluate(
        request.config,
        request.workspace,
        executor=RayExecutor(),
        overwrite=request.overwrite,
    )
    model = evaluation["registered_model"]
    for row in evaluation["results"]:
        low, high = row["intervals"]["macro_f2"]
        print(
            f"{row['method']}: macro-F2 {row['macro_f2']:.3f} ({low:.3f} to {high:.3f}), "
            f"FNR {row['fnr']:.3f}, accuracy {row['accuracy']:.3f}"
        )
    if evaluation["below_real"]:
        print(f"warning: {BelowReal(**evaluation['below_real'])}")
    if model:
        print(
            f"registered {evaluation['best_classifier']['name']} as {model['name']} "
            f"version {model['version']}"
        )


COMMAND = Command(
    name="evaluate",
    summary="Test every classifier once, with bootstrap intervals; register the best.",
    reads="<workdir>/data, <workdir>/classifiers",
    writes="<workdir>/evaluation: evaluation.json, predictions/<method>-seed<k>.parquet, pictures, "
    "maps and a projection of the best classifier; a version of the registered model in MLflow",
    costs="one pass over the test set a classifier, and up to 1,500 other images: seconds for demo",
    sections=("data", "tracking", "compute"),
    run=_run,
    leases=("evaluate",),
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
