"""``gemix report``: one HTML page of what the other steps have left in the work directory.

It reads a few small files and a handful of images, so it asks Ray for nothing.
"""

from __future__ import annotations

import sys

from gemix.config import PipelineConfig
from gemix.io.storage import open_output
from gemix.io.workspace import Layout
from gemix.report.content import Sources, gather
from gemix.report.page import render
from gemix.steps.outputs import open_step
from gemix.tracking import mlflow_run as tracking
from jobs._runtime.command import Command

PAGE = "report.html"


def build_report(config: PipelineConfig, layout: Layout, *, overwrite: bool = False) -> str:
    """Writes the page and logs it to MLflow.

    Returns:
        Where the page is.

    Raises:
        AlreadyFinishedError: if there is a page and `overwrite` is not set.
        DataError: for a result that is there and cannot be read.
    """
    if not overwrite:
        open_output(layout.report, PAGE, overwrite=False)
    # made before an older page is removed: a damaged result must not cost it
    page = render(gather(_sources(config, layout), config))
    with tracking.start_run(config, layout.workdir, "report") as run:
        store = open_step(layout.report, PAGE, config, overwrite)
        run.log_text(page, PAGE)
        store.write_bytes(PAGE, page.encode())
    print(f"report: {store.url}/{PAGE}", flush=True)
    return f"{store.url}/{PAGE}"


def _sources(config: PipelineConfig, layout: Layout) -> Sources:
    return Sources(
        workdir=layout.workdir,
        data=layout.data,
        gan=layout.gan,
        synthetic={method: layout.synthetic(method) for method in config.synthesis.methods},
        classifiers=layout.classifiers,
        evaluation=layout.evaluation,
    )


COMMAND = Command(
    name="report",
    summary="One self-contained HTML page: does it help, and what it looks like.",
    reads="whatever the other steps have left in <workdir>; a step that is missing is named",
    writes="<workdir>/report/report.html, and the same as an MLflow artifact",
    costs="seconds, one CPU core",
    run=lambda request: build_report(request.config, request.layout, overwrite=request.overwrite),
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
