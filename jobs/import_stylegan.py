"""Import networks of the public StyleGAN2-ADA; nothing in their file is run."""

from __future__ import annotations

import argparse
import sys

from jobs._runtime.command import Command, Request


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", help="the pickle, a path or s3:// URL")
    parser.add_argument("out", help="directory for the generator, a path or s3:// URL")
    parser.add_argument(
        "--classes", help="names of the classes in the networks' order, as normal,pneumonia,cancer"
    )


def _run(request: Request) -> None:
    from gemix.steps.import_stylegan import import_stylegan

    options = request.options
    classes = tuple(options.classes.split(",")) if options.classes is not None else None
    architecture = import_stylegan(
        options.network, options.out, classes=classes, overwrite=request.overwrite
    )
    print(
        f"{architecture.resolution} x {architecture.resolution} pixels, "
        f"{architecture.img_channels} channels, {architecture.label_dim} classes, in {options.out}"
    )


COMMAND = Command(
    name="import-stylegan",
    summary="Read a network pickle of the public StyleGAN2-ADA or StyleGAN2 in PyTorch; run "
    "nothing in it.",
    reads="<network>: generator 'skip', discriminator 'resnet', of any size",
    writes="<out>: generator.safetensors as train-gan leaves it, generator_raw and discriminator",
    costs="seconds",
    run=_run,
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
