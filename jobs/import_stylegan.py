"""Public StyleGAN2-ADA networks to a generator directory, without running anything in the file."""

from __future__ import annotations

import argparse
import hashlib
import sys

from gemix.core.errors import CheckpointError, ConfigError
from gemix.gan.checkpoints.checkpoint import TrainingSpec
from gemix.gan.checkpoints.generator_io import MARKER, save_imported
from gemix.gan.config import GanConfig
from gemix.gan.importers.network_pickle import read_network_pickle
from gemix.gan.importers.stylegan2 import import_networks
from gemix.gan.models.architecture import Architecture
from gemix.io.storage import Store, open_output
from jobs._runtime.command import Command, Request

MAX_BYTES = 2**33  # networks of 1024 x 1024 images take less than 1 GiB


def import_stylegan(
    pickle_url: str,
    out_url: str,
    *,
    classes: tuple[str, ...] | None = None,
    overwrite: bool = False,
) -> Architecture:
    """Writes the pickle's averaged generator as train-gan does, and its other networks beside it.

    Args:
        classes: names of the network's classes in its order; by default class0, class1, …

    Returns:
        The networks' architecture.

    Raises:
        CheckpointError: for anything but public StyleGAN2 networks that gemix has equals of.
        ConfigError: for class names that are not one a class.
        DataError: if the pickle cannot be read.
    """
    data = _read(pickle_url)
    architecture, weights = import_networks(read_network_pickle(data))
    if classes is None:
        classes = tuple(f"class{index}" for index in range(architecture.label_dim))
    if len(classes) != architecture.label_dim or len(set(classes)) != len(classes):
        raise ConfigError(
            f"--classes {','.join(classes)}: the networks have {architecture.label_dim} classes; "
            "give each a name of its own, or leave --classes out"
        )
    origin = TrainingSpec(
        architecture=architecture,
        config=GanConfig(
            z_dim=architecture.z_dim,
            w_dim=architecture.w_dim,
            mapping_layers=architecture.mapping_layers,
            channel_base=architecture.channel_base,
            channel_max=architecture.channel_max,
        ),
        classes=classes,
        data_digest=f"unknown; imported from a file of SHA-256 {hashlib.sha256(data).hexdigest()}",
    )
    save_imported(open_output(out_url, MARKER, overwrite), weights, origin)
    return architecture


def _read(url: str) -> bytes:
    store, name = Store.of_file(url)
    size = store.size(name)
    if size > MAX_BYTES:
        raise CheckpointError(f"{url}: {size / 2**30:.0f} GiB, far larger than networks are")
    return store.read_bytes(name)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", help="the pickle, a path or s3:// URL")
    parser.add_argument("out", help="directory for the generator, a path or s3:// URL")
    parser.add_argument(
        "--classes", help="names of the classes in the networks' order, as normal,pneumonia,cancer"
    )


def _run(request: Request) -> None:
    options = request.options
    classes = tuple(options.classes.split(",")) if options.classes is not None else None
    architecture = import_stylegan(
        options.network, options.out, classes=classes, overwrite=request.overwrite
    )
    print(
        f"import-stylegan: {architecture.resolution} x {architecture.resolution} pixels, "
        f"{architecture.img_channels} channels, {architecture.label_dim} classes, in {options.out}"
    )


COMMAND = Command(
    name="import-stylegan",
    summary="Reads a network pickle of the public StyleGAN2-ADA or StyleGAN2 in PyTorch; nothing "
    "in it is run.",
    reads="<network>: generator 'skip', discriminator 'resnet', of any size",
    writes="<out>: generator.safetensors as train-gan leaves it, generator_raw and discriminator",
    costs="seconds",
    run=_run,
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
