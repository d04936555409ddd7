"""Run all steps, prepare to report, in one job."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from gemix.config import PipelineConfig
from jobs._runtime.command import Command, Request
from jobs._runtime.ray_executor import RayExecutor

if TYPE_CHECKING:
    from gemix.io.workspace import Workspace


def add_redo(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--redo``."""
    parser.add_argument(
        "--redo",
        action="store_true",
        help="run the finished steps whose settings have changed again, and keep the others",
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_redo(parser)
    parser.add_argument(
        "--until",
        choices=("prepare", "train-teacher", "train-gan", "synthesize", "audit"),
        help="end after this step: a site that shares its generator needs no classifiers",
    )


def _run(request: Request) -> None:
    from gemix.steps.pipeline import run_pipeline

    summary = run_pipeline(
        request.config,
        request.workspace,
        executor=RayExecutor(),
        overwrite=request.overwrite,
        redo=request.options.redo,
        until=request.options.until,
    )
    if summary:
        print_summary(summary, request.workspace)


def print_summary(summary: dict[str, Any], workspace: Workspace) -> None:
    """Print the table of results and where to read on."""
    from gemix.steps.pipeline import SUMMARY
    from gemix.steps.report import PAGE

    print(f"\n{'method':<18}{'macro-F2':>10}{'FNR':>8}{'macro-F1':>10}{'accuracy':>10}")
    for row in summary["results"]:
        print(
            f"{row['method']:<18}{row['macro_f2']:>10.3f}{row['fnr']:>8.3f}"
            f"{row['macro_f1']:>10.3f}{row['accuracy']:>10.3f}"
        )
    if teacher := summary["teacher"]:
        name = "(teacher itself)"
        print(f"{name:<18}{teacher['macro_f2']:>10.3f}{teacher['fnr']:>8.3f}")
    print()
    for method, audit in summary["audits"].items():
        words = ": ".join([audit["verdict"], *audit["reasons"][:1]])
        print(f"privacy audit, {method} images: {words}")
    total = sum(summary["wall_seconds"].values())
    print(f"report: {workspace.report}/{PAGE}")
    print(f"summary: {workspace.workdir}/{SUMMARY} ({total:.0f} s)")


COMMAND = Command(
    name="pipeline",
    summary="Run the whole path: prepare, train-teacher, train-gan, synthesize, audit, "
    "train-classifier, evaluate and\nreport.",
    reads="what the configuration names as data.path",
    writes="<workdir>: a directory a step, summary.json, report/report.html, mlflow.db",
    costs="as the preset says (its section `about`); a stopped run resumes",
    sections=tuple(PipelineConfig.__dataclass_fields__),
    run=_run,
    leases=("prepare", "train-gan", "synthesize", "audit", "train-classifier", "evaluate"),
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
