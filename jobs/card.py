"""Write the cards of synthetic sets."""

from __future__ import annotations

import sys

from jobs._runtime.command import Request
from jobs._runtime.set_command import SetCommand


def _run(request: Request) -> None:
    from gemix.steps.sets.card import write_card
    from gemix.steps.sets.find_sets import find_set, finished_sets

    config, workspace = request.config, request.workspace
    for name in request.options.sets or finished_sets(config, workspace):
        write_card(config, workspace, name, overwrite=request.overwrite)
        print(f"{find_set(workspace, name)}/card.md", flush=True)


COMMAND = SetCommand(
    name="card",
    summary="Write what synthetic sets are made of, what they show and what they are for. Name "
    "methods\nor directories of sets (default: the finished sets of synthesis.methods).",
    reads="the sets, with fidelity.json and audit.json if they are there; <workdir>/data: train, "
    "val;\n        <workdir>/evaluation, if it has classifiers of synthetic images alone",
    writes="card.md and card.json in the directory of each set",
    costs="one pass of metrics.extractor over metrics.images images of each set, and over the real "
    "ones\n        once: 10 s a set for demo on 2 CPU cores; metrics.images=0 does without",
    sections=("metrics", "synthesis", "tracking"),
    run=_run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
