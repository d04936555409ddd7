"""Train the teachers, classifiers that say what synthetic images show, with Ray Train."""

from __future__ import annotations

import sys

from jobs._runtime.command import Command, Request
from jobs._runtime.ray_executor import RayExecutor


def _run(request: Request) -> None:
    from gemix.steps.train_teacher import train_teachers

    rows = train_teachers(
        request.config,
        request.workspace,
        executor=RayExecutor(),
        overwrite=request.overwrite,
    )
    print(f"{len(rows)} teachers in {request.workspace.teacher}")


COMMAND = Command(
    name="train-teacher",
    summary="Train the classifiers that say which classes synthetic images show.",
    reads="<workdir>/data: the train split; val to say how good they are",
    writes="<workdir>/teacher: teacher.json, and model.safetensors, model.json for each seed",
    costs="teacher.seeds x teacher.epochs passes over the real training images; a stopped run "
    "resumes with the teacher it was at",
    sections=("teacher", "data", "tracking", "compute"),
    run=_run,
    leases=("train-teacher",),
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
