"""Export the networks of a training, for another training to start from."""

from __future__ import annotations

import argparse
import sys

from jobs._runtime.command import Command, Request


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="directory for the networks, a path or s3:// URL")
    parser.add_argument("--gan", help="directory of the training (default: <workdir>/gan)")


def _run(request: Request) -> None:
    from gemix.steps.export_gan import export_gan

    options = request.options
    export_gan(options.gan or request.workspace.gan, options.out, overwrite=request.overwrite)
    print(f"start from it with gan.init_from={options.out}")


COMMAND = Command(
    name="export-gan",
    summary="Write generator and discriminator of a training's newest checkpoint in float16, for "
    "another training to start from (gan.init_from).",
    reads="<workdir>/gan: the newest checkpoint, seen.parquet",
    writes="<out>: generator.safetensors, discriminator.safetensors, generator.json, seen.parquet",
    costs="seconds",
    run=_run,
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
