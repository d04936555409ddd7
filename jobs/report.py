"""Build the report: one HTML page of what the other steps have left."""

from __future__ import annotations

import sys

from gemix.steps.report import build_report
from jobs._runtime.command import Command

COMMAND = Command(
    name="report",
    summary="One self-contained HTML page: does it help, and what it looks like.",
    reads="whatever the other steps have left in <workdir>; a step that is missing is named",
    writes="<workdir>/report/report.html, and the same as an MLflow artifact",
    costs="seconds, one CPU core",
    run=lambda request: build_report(
        request.config, request.workspace, overwrite=request.overwrite
    ),
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
