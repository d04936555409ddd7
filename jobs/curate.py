"""Leave out of synthetic sets what rules remove: copies, duplicates, images far from real ones."""

from __future__ import annotations

import sys

from jobs._runtime.command import Request
from jobs._runtime.set_command import SetCommand


def _run(request: Request) -> None:
    from gemix.steps.sets.curate import SUFFIX, curate_set, describe
    from gemix.steps.sets.find_sets import find_set, finished_sets

    config, workspace = request.config, request.workspace
    for name in request.options.sets or finished_sets(config, workspace):
        record = curate_set(config, workspace, name, overwrite=request.overwrite)
        print(f"{find_set(workspace, name)}{SUFFIX}: {describe(record)}", flush=True)


COMMAND = SetCommand(
    name="curate",
    summary="Write copies of synthetic sets without the images that curation.rules remove. Name "
    "methods\nor directories of sets (default: the finished sets of synthesis.methods).",
    reads="the sets; <workdir>/data: train; for the rule discriminator <workdir>/gan",
    writes="<set>-curated beside each set: shards, manifest.json, curation.json with the counts; "
    "gemix\n        train-classifier --methods softmax,softmax-curated trains on both",
    costs="one pass of metrics.extractor over the set, which is held in memory, and over at most "
    "curation.real_images real images: 30 s a set for demo on 2 CPU cores",
    sections=("curation", "metrics", "data", "tracking"),
    run=_run,
    leases=("curate",),
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
