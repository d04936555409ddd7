"""Sample images of given seeds and one label."""

from __future__ import annotations

import io

import numpy as np

from gemix.core.errors import ConfigError
from gemix.core.png import encode_png, tile
from gemix.gan.checkpoints.generator_io import GeneratorBundle, load_generator
from gemix.gan.config import SamplingConfig
from gemix.gan.sampling import sample_images
from gemix.io.storage import Store, open_output
from gemix.labels import check_labels

GRID = "grid.png"


def sample(
    gan_url: str,
    out_url: str,
    *,
    seeds: list[int],
    label: list[float] | None,
    config: SamplingConfig,
    overwrite: bool = False,
) -> np.ndarray:
    """Write ``seed<n>.png`` each, ``images.npz`` and a grid.

    Args:
        gan_url: directory with a finished generator.
        label: one weight a class, summing to 1; None for a generator without classes.

    Returns:
        uint8 [N, C, H, W].

    Raises:
        CheckpointError: without a generator.
        ConfigError: for a generator with classes and no label, or the other way round.
        DataError: for a label that is none.
    """
    generator = load_generator(Store(gan_url))
    theta = _soft_label(generator, label)
    store = open_output(out_url, GRID, overwrite)
    images = sample_images(generator.network, seeds, theta.repeat(len(seeds), axis=0), config)
    for seed, image in zip(seeds, images, strict=True):
        store.write_bytes(f"seed{seed:010d}.png", encode_png(tile(image[None], 1)))
    archive = io.BytesIO()
    np.savez_compressed(archive, images=images, seeds=np.array(seeds), label=theta[0])
    store.write_bytes("images.npz", archive.getvalue())
    columns = max(c for c in range(1, 9) if len(seeds) % c == 0)
    store.write_bytes(GRID, encode_png(tile(images, columns)))
    return images


def _soft_label(generator: GeneratorBundle, label: list[float] | None) -> np.ndarray:
    classes = generator.classes
    if not classes:
        if label is not None:
            raise ConfigError("--label: the generator has no classes; leave it out")
        return np.zeros((1, 0), np.float32)
    if label is None:
        raise ConfigError(
            f"--label is missing: give one weight for each of the classes {', '.join(classes)}"
        )
    return check_labels(np.array(label), len(classes))
