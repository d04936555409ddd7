"""Import networks of the public StyleGAN2-ADA; nothing in their file is run."""

from __future__ import annotations

import hashlib

from gemix.core.errors import CheckpointError, ConfigError
from gemix.gan.checkpoints.checkpoint import TrainingSpec
from gemix.gan.checkpoints.generator_io import MARKER, save_imported
from gemix.gan.config import GanConfig
from gemix.gan.importers.network_pickle import MAX_BYTES, read_network_pickle
from gemix.gan.importers.stylegan2 import import_networks
from gemix.gan.models.architecture import Architecture
from gemix.io.storage import Store, open_output


def import_stylegan(
    pickle_url: str,
    out_url: str,
    *,
    classes: tuple[str, ...] | None = None,
    overwrite: bool = False,
) -> Architecture:
    """Write the pickle's averaged generator as train-gan does, and its other networks beside it.

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
    spec = TrainingSpec(
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
    save_imported(open_output(out_url, MARKER, overwrite), weights, spec)
    return architecture


def _read(url: str) -> bytes:
    store, name = Store.of_file(url)
    size = store.size(name)
    if size > MAX_BYTES:
        raise CheckpointError(f"{url}: {size / 2**30:.0f} GiB, far larger than networks are")
    return store.read_bytes(name)
