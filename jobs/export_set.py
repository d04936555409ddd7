"""Export a synthetic set for others, without the record of whom its generator learned from."""

from __future__ import annotations

import argparse
import sys

from jobs._runtime.command import Command, Request


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", help="a method with a finished set, or the directory of a set")
    parser.add_argument("out", help="directory for the copy, a path or s3:// URL")


def _run(request: Request) -> None:
    from gemix.steps.sets.export_set import export_set

    options = request.options
    manifest = export_set(
        request.config,
        request.workspace,
        options.set,
        options.out,
        overwrite=request.overwrite,
    )
    print(f"{manifest.images()} images of the digest {manifest.digest[:16]}: {options.out}")


COMMAND = Command(
    name="export-set",
    summary="Copy a synthetic set whose privacy audit has passed, for others: images, labels, card "
    "and\naudit, and no patient key, thumbnail or path.",
    reads="the set, with audit.json",
    writes="<out>: shards, manifest.json, card, audit.json, fidelity.json, a seen.parquet that "
    "names nobody",
    costs="as long as copying takes",
    sections=("audit",),
    run=_run,
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
