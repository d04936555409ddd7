"""Search T, b and N with Ray Tune and Optuna."""

from __future__ import annotations

import sys

from jobs._runtime.command import Command, Request
from jobs._runtime.ray_executor import RayExecutor


def _run(request: Request) -> None:
    from gemix.steps.sweep.confirm import check_overlap
    from gemix.steps.sweep.finish import finish_sweep
    from gemix.steps.sweep.results import describe_winner, table
    from tune.sweep import run_sweep

    if request.config.sweep.fresh_seeds:
        check_overlap(request.config, request.workspace)  # before the search, not after it
    sweep = run_sweep(request.config, request.workspace, overwrite=request.overwrite)
    print(table(sweep.study.records(), sweep.study.objective), flush=True)
    results = finish_sweep(sweep, executor=RayExecutor())
    if results["confirmed"] is not None:
        print(describe_winner(results["confirmed"]))
    print(f"results: {request.workspace.sweep}/sweep.json")


COMMAND = Command(
    name="sweep",
    summary="Search temperature T, bias b, the synthetic ratio N and other settings for the best "
    "macro-F2 on validation that misses no more of the sick; train the best again on fresh seeds, "
    "and\ntest the winner once. A stopped sweep goes on.",
    reads="<workdir>/data (train and val; test is out of reach of the search), <workdir>/gan, "
    "<workdir>/teacher if there is one",
    writes="<workdir>/sweep: study.db, sweep.json, images and trainings that trials share; "
    "confirmed/: classifiers on fresh seeds; runs in MLflow, one a trial",
    costs="at most sweep.trials x sweep.seeds trainings of a classifier, and 5 x sweep.fresh_seeds",
    sections=("sweep", "labels", "synthesis", "classifier", "compute"),
    run=_run,
    leases=("sweep",),
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
