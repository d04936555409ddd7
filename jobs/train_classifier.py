"""Train classifiers on real, and on real and synthetic images, with Ray Train."""

from __future__ import annotations

import argparse
import sys

from jobs._runtime.command import Command, Request
from jobs._runtime.ray_executor import RayExecutor


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--methods",
        type=lambda text: text.split(","),
        help="synthetic sets to use beside the real images alone, separated by commas "
        "(default: those of synthesis.methods that are finished)",
    )
    parser.add_argument(
        "--synthetic-only",
        action="store_true",
        help="train on each synthetic set alone too, for evaluate to test on the same real images",
    )


def _run(request: Request) -> None:
    from gemix.steps.train_classifier import train_classifiers

    rows = train_classifiers(
        request.config,
        request.workspace,
        methods=request.options.methods,
        synthetic_only=request.options.synthetic_only,
        executor=RayExecutor(),
        overwrite=request.overwrite,
    )
    print(f"{len(rows)} classifiers in {request.workspace.classifiers}")


COMMAND = Command(
    name="train-classifier",
    summary="Train classifiers on real images, and on real + synthetic images of each method.",
    reads="<workdir>/data, <workdir>/synthetic/<method>",
    writes="<workdir>/classifiers/<method>-seed<k>: model.safetensors, model.json",
    costs="(1 + methods) x seeds x epochs passes over as many images as there are real ones, "
    "(1 + 2 methods) x with --synthetic-only: two minutes for demo on 2 CPU cores; a stopped run "
    "resumes with the classifier it was at",
    sections=("classifier", "decision", "synthesis", "data", "tracking", "compute"),
    run=_run,
    leases=("train-classifier",),
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
