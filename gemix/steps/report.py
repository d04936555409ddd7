"""Build the report: one HTML page of what the other steps have left in the work directory."""

from __future__ import annotations

import logging

from gemix.config import PipelineConfig
from gemix.io.storage import open_output
from gemix.io.workspace import Workspace
from gemix.report.content import gather
from gemix.report.page import render
from gemix.steps.runtime.executor import Executor
from gemix.steps.runtime.outputs import open_step
from gemix.tracking import mlflow_run as tracking

log = logging.getLogger("gemix.report")

PAGE = "report.html"


def build_report(
    config: PipelineConfig,
    workspace: Workspace,
    *,
    executor: Executor | None = None,
    overwrite: bool = False,
) -> str:
    """Write the page and log it to MLflow.

    It reads a few small files and a handful of images, so the executor is not used.

    Returns:
        Where the page is.

    Raises:
        AlreadyFinishedError: if there is a page and `overwrite` is not set.
        DataError: for a result that is there and cannot be read.
    """
    del executor
    if not overwrite:
        open_output(workspace.report, PAGE, overwrite=False)
    # made before an older page is removed: a damaged result must not cost it
    page = render(gather(workspace, config))
    with tracking.start_run(config, workspace.workdir, "report") as run:
        store = open_step(workspace.report, PAGE, config, overwrite)
        run.log_text(page, PAGE)
        store.write_bytes(PAGE, page.encode())
    log.info("%s/%s", store.url, PAGE)
    return f"{store.url}/{PAGE}"
