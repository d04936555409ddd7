"""Synthesize image sets of soft labels with Ray Data."""

from __future__ import annotations

import sys

from jobs._runtime.command import Command, Request
from jobs._runtime.ray_executor import RayExecutor


def _run(request: Request) -> None:
    from gemix.steps.synthesize import synthesize

    manifests = synthesize(
        request.config,
        request.workspace,
        executor=RayExecutor(),
        overwrite=request.overwrite,
    )
    for method, manifest in manifests.items():
        print(f"{manifest.images()} images in {request.workspace.synthetic(method)}")


COMMAND = Command(
    name="synthesize",
    summary="Make N images of soft labels for each method in synthesis.methods.",
    reads="<workdir>/data (classes, size of the train split), <workdir>/gan, and <workdir>/teacher "
    "if it is there; with labels.class_weights=inverse_recall also labels.recall_of",
    writes="<workdir>/synthetic/<method>: Parquet shards of the same schema as the real ones, "
    "labels.svg (the labels drawn) and fidelity.json (whether the images show them)",
    costs="one generator pass an image: some 100 images/s at 64 x 64 on 2 CPU cores",
    sections=("synthesis", "labels", "tracking", "compute"),
    run=_run,
    leases=("synthesize",),
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
