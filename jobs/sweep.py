"""Search T, b and N with Ray Tune and Optuna."""

from __future__ import annotations

import sys

from jobs._runtime.command import Command, Request


def _run(request: Request) -> None:
    from gemix.steps.sweep.results import table
    from tune.sweep import run_sweep

    sweep, _ = run_sweep(request.config, request.workspace, overwrite=request.overwrite)
    print(table(sweep.study.records(), sweep.study.objective))
    print(f"results: {request.workspace.sweep}/sweep.json")


COMMAND = Command(
    name="sweep",
    summary="Search temperature T, bias b, the synthetic ratio N and other settings for the best "
    "macro-F2 on validation that misses no more of the sick. A stopped sweep goes on.",
    reads="<workdir>/data (train and val; test is out of reach), <workdir>/gan",
    writes="<workdir>/sweep: study.db, sweep.json, images and trainings that trials share",
    costs="at most sweep.trials x sweep.seeds trainings of a classifier",
    sections=("sweep", "labels", "synthesis", "classifier", "compute"),
    run=_run,
    leases=("sweep",),
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
