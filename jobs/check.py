"""Check two shard sets, or the splits of one, for shared patients and images."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from gemix.core.errors import DataError
from jobs._runtime.command import Command, Request

if TYPE_CHECKING:
    from gemix.data.leakage.compare_sets import SetComparison

_SHOWN = 5  # shared groups and pairs that are printed


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", help="a shard set, a path or s3:// URL")
    parser.add_argument(
        "second", nargs="?", help="another one; without it, the splits of the first are compared"
    )
    parser.add_argument("--out", help="directory for overlap.json and overlap.png")


def _run(request: Request) -> None:
    from gemix.steps.check import check

    options = request.options
    overlaps = check(options.first, options.second, out=options.out, overwrite=request.overwrite)
    for overlap in overlaps:
        print(_describe(overlap), flush=True)
    guilty = [" and ".join(overlap.names) for overlap in overlaps if overlap]
    if guilty:
        raise DataError(
            f"{'; '.join(guilty)}: overlap, so a test on one after training on the other measures "
            "memory; take the shared patients and images out of one set and prepare it again"
        )


def _describe(overlap: SetComparison) -> str:
    (a, b), (images_a, images_b) = overlap.names, overlap.images
    lines = [
        f"{a} ({images_a} images) and {b} ({images_b} images): "
        f"{len(overlap.shared_groups)} shared groups; of {b}, {overlap.exact} images are in {a} "
        f"too and {overlap.near} more nearly so"
    ]
    if overlap.shared_groups:
        more = ", …" if len(overlap.shared_groups) > _SHOWN else ""
        lines.append(f"  groups: {', '.join(overlap.shared_groups[:_SHOWN])}{more}")
    lines += [
        f"  {'identical' if pair.identical else f'{pair.similarity:.3f}'}: "
        f"{pair.sources[0]} ({pair.splits[0]}), {pair.sources[1]} ({pair.splits[1]})"
        for pair in overlap.worst[:_SHOWN]
    ]
    return "\n".join(lines)


COMMAND = Command(
    name="check",
    summary="Find patients, images and near duplicates that two shard sets share, or the splits "
    "of one set; exit with 1 if there are any.",
    reads="<first> and <second>: shard sets of gemix prepare or gemix synthesize",
    writes="<out>, where given: overlap.json, and overlap.png with the worst pairs side by side",
    costs="minutes for 100 thousand images, one CPU core, the memory of both sets",
    run=_run,
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
