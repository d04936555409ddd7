"""Prepare raw scans: checked, cropped, resized, split, in Parquet shards."""

from __future__ import annotations

import sys

from jobs._runtime.command import Command, Request
from jobs._runtime.ray_executor import RayExecutor


def _run(request: Request) -> None:
    from gemix.steps.prepare import prepare

    prepare(
        request.config,
        request.workspace,
        executor=RayExecutor(),
        overwrite=request.overwrite,
    )


COMMAND = Command(
    name="prepare",
    summary="Turn raw scans into checked, cropped, resized and split Parquet shards.",
    reads="data.path: class folders, COVIDx CT, DICOM, NIfTI, MedMNIST, Parquet; or the phantom",
    writes="<workdir>/data: shards, manifest.json, quarantine.json, CARD.md, contact_sheet.png",
    costs="about 200 scans of 512 x 512 pixels a second and CPU core; no GPU",
    sections=("data", "tracking"),
    run=_run,
    leases=("prepare",),
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
