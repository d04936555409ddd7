"""Compare methods: images, augmentations and recipes under one protocol."""

from __future__ import annotations

import sys

from jobs._runtime.command import Command, Request
from jobs._runtime.ray_executor import RayExecutor


def _run(request: Request) -> None:
    from gemix.steps.compare.step import compare
    from gemix.steps.compare.tables import text, worth_lines

    results = compare(
        request.config,
        request.workspace,
        executor=RayExecutor(),
        overwrite=request.overwrite,
    )
    for block in results["blocks"]:
        print(
            f"\n{block['model']}, {block['patients']} training patients, "
            f"{block['draws']} draw(s) of them, {block['seeds']} seed(s):"
        )
        print(text(block))
    for line in worth_lines(results["worth"]):
        print(line)
    print(f"\nresults: {request.workspace.comparison}/comparison.json and tables/")


COMMAND = Command(
    name="compare",
    summary="Train classifiers by every method of compare.methods, on the same patients and with "
    "the\nsame budget, and say which of them help. A stopped comparison goes on; a method that is "
    "added\nis trained alone.",
    reads="<workdir>/data, the synthetic sets that the methods name; the test split once, last",
    writes="<workdir>/comparison: comparison.json, tables (Markdown, CSV, LaTeX), predictions,\n"
    "        and the generators that it trains",
    costs="methods x models x seeds x draws trainings of a classifier, compute.workers at a time; "
    "with\n        compare.generator=retrained, compare.gan_seeds or the set cgan, GANs first",
    sections=(
        *("compare", "classifier", "gan", "metrics", "teacher", "labels", "synthesis"),
        *("data", "tracking", "compute"),
    ),
    run=_run,
    leases=("compare",),
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
