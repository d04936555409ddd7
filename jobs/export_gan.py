"""Export the networks of a training, for another training to start from."""

from __future__ import annotations

import argparse
import sys

from jobs._runtime.command import Command, Request


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="directory for the networks, a path or s3:// URL")
    parser.add_argument("--gan", help="directory of the training (default: <workdir>/gan)")
    parser.add_argument(
        "--teacher",
        help="directory of the teachers that go along (default: <workdir>/teacher if it is there, "
        "unless --gan is given)",
    )
    parser.add_argument(
        "--for-others",
        action="store_true",
        help="write what may leave: no discriminator, no patient key, thumbnail or path",
    )


def _run(request: Request) -> None:
    from gemix.steps.export_gan import export_gan

    options = request.options
    teacher = None
    if options.teacher or (options.gan is None and _has_teacher(request.workspace.teacher)):
        teacher = options.teacher or request.workspace.teacher
    export_gan(
        options.gan or request.workspace.gan,
        options.out,
        teacher_url=teacher,
        for_others=options.for_others,
        overwrite=request.overwrite,
    )
    if not options.for_others:
        print(f"start a training from it with gan.init_from={options.out}")
    if teacher:
        print(
            f"make images with synthesis.generator={options.out} "
            f"synthesis.teacher={options.out}/teacher"
        )


def _has_teacher(url: str) -> bool:
    from gemix.io.storage import Store
    from gemix.synthesis.teacher import TEACHER

    return Store(url).exists(TEACHER)


COMMAND = Command(
    name="export-gan",
    summary="Write generator and discriminator of a training's newest checkpoint in float16, for "
    "another training to start from (gan.init_from); with --for-others the generator alone, for "
    "another\nsite to make images with.",
    reads="<workdir>/gan: the newest checkpoint, seen.parquet; <workdir>/teacher",
    writes="<out>: generator.safetensors, discriminator.safetensors, generator.json, seen.parquet, "
    "teacher/",
    costs="seconds",
    run=_run,
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
