"""Build the report: one HTML page of what the other steps have left."""

from __future__ import annotations

import sys

from jobs._runtime.command import Command, Request


def _run(request: Request) -> None:
    from gemix.steps.report import build_report

    build_report(request.config, request.workspace, overwrite=request.overwrite)


COMMAND = Command(
    name="report",
    summary="Write one self-contained HTML page: does it help, and what does it look like.",
    reads="the results of the other steps in <workdir>; names those that are missing",
    writes="<workdir>/report/report.html, and the same as an MLflow artifact",
    costs="seconds, one CPU core",
    run=_run,
    sections=("synthesis", "tracking"),
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
