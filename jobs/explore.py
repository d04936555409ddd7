"""Write a page to explore what a generator makes of soft labels."""

from __future__ import annotations

import argparse
import sys

from jobs._runtime.command import Command, Request
from jobs.sample import parse_seeds


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seeds", default="0-5", help="a latent each, as 0-5 or 1,5,9 (default: %(default)s)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=11,
        help="images on a path between two classes; of three classes, the triangle has half as "
        "many on a side (default: %(default)s)",
    )
    parser.add_argument("--gan", help="directory of the generator (default: <workdir>/gan)")
    parser.add_argument("--out", help="where to write (default: <workdir>/explore)")


def _run(request: Request) -> None:
    from gemix.steps.sets.explore import explore

    options = request.options
    page = explore(
        request.config,
        request.workspace,
        seeds=parse_seeds(options.seeds),
        steps=options.steps,
        gan=options.gan,
        out=options.out,
        overwrite=request.overwrite,
    )
    print(page)


COMMAND = Command(
    name="explore",
    summary="Write one HTML file, for a browser without a server: images of soft labels from a few "
    "latents,\nwith sliders, and under each what was asked for and what a teacher sees.",
    reads="<workdir>/gan, and <workdir>/teacher if it is there",
    writes="<workdir>/explore: explore.html",
    costs="54 images a seed for three classes, 11 for each pair of classes else: seconds on 2 CPU "
    "cores\n        for demo; a page of 324 images has 0.6 MB at 32 x 32 pixels, 2.4 at 128 x 128",
    sections=("synthesis",),
    run=_run,
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
