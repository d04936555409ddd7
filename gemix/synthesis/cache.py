"""Synthetic images by what they are made of, shared by all that ask for them.

Image i of a set is a function of its seed, its label and how the generator is sampled, so a set of
N images begins with the smaller ones. Blocks of images lie in a directory that is named after all
the rest. They may be deleted at any time.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from gemix.core.errors import DataError
from gemix.data.image_set import ImageSet, combine_digests, concatenate
from gemix.data.shards.reading import copy_images
from gemix.data.shards.schema import content_hash, image_checksum, weights_of
from gemix.gan.checkpoints.generator_io import GeneratorBundle
from gemix.io.storage import Store
from gemix.labels import LabelConfig
from gemix.synthesis.config import SynthesisConfig
from gemix.synthesis.shards import rows_digest, write_synthetic_shard
from gemix.synthesis.teacher import Teachers

BLOCK = 128  # images of a file; part of the address, so never change it
_COLUMNS = ("image", "class_index", "soft_label", "patient", "source")


class ImageCache:
    """Blocks of synthetic images below a directory; several processes may fill it at once."""

    def __init__(self, store: Store):
        self._store = store

    def images(
        self,
        generator: GeneratorBundle,
        method: str,
        *,
        count: int,
        labels: LabelConfig,
        config: SynthesisConfig,
        teachers: Teachers | None = None,
    ) -> ImageSet:
        """Return the first `count` images of a set; make those that are missing.

        Args:
            method: a label sampler's name.
            count: 1 or more.
            labels, config, teachers: as ``gemix synthesize`` takes them; `config.count` and
                `config.ratio` do not matter.
        """
        address = rows_digest(generator, method, labels, config, teachers)
        folder = self._store / address
        tables = [
            self._block(folder, generator, method, start, labels, config, teachers)
            for start in range(0, count, BLOCK)
        ]
        rows = pa.concat_tables(tables).slice(0, count)
        architecture = generator.network.architecture
        side, channels = architecture.resolution, architecture.img_channels
        images = np.empty((count, channels, side, side), np.uint8)
        copy_images(folder.url, rows, images)
        return ImageSet(
            images=images,
            labels=rows["class_index"].to_numpy().astype(np.int64),
            soft_labels=weights_of(rows["soft_label"], len(generator.classes)).astype(np.float32),
            groups=tuple(rows["patient"].to_pylist()),
            sources=tuple(rows["source"].to_pylist()),
            classes=generator.classes,
            digest=combine_digests([address, str(count)]),
        )

    def _block(
        self,
        folder: Store,
        generator: GeneratorBundle,
        method: str,
        start: int,
        labels: LabelConfig,
        config: SynthesisConfig,
        teachers: Teachers | None,
    ) -> pa.Table:
        """Return the rows of a block; write it if it is missing or damaged."""
        name = f"{start:09d}.parquet"
        if folder.exists(name):
            try:
                return folder.read_columns(name, _COLUMNS)
            except DataError:
                folder.delete(name)
        write_synthetic_shard(
            folder,
            name,
            generator,
            method,
            start=start,
            count=BLOCK,
            labels=labels,
            config=config,
            teachers=teachers,
        )
        return folder.read_columns(name, _COLUMNS)


def joined(real: ImageSet, synthetic: ImageSet) -> ImageSet:
    """Return real images followed by synthetic ones of the same classes and shape.

    Raises:
        DataError: if classes or shapes differ.
    """
    ours, theirs = ((s.classes, s.images.shape[1:]) for s in (real, synthetic))
    if ours != theirs:
        raise DataError(
            f"real images are of {ours}, those of the generator of {theirs}; run gemix train-gan "
            "on these data"
        )
    return concatenate([real, synthetic])


def stored_digest(training: ImageSet) -> str:
    """Return the digest that the images have as the training split of sets on disk."""
    checksums = [image_checksum(image) for image in training.images]
    return content_hash(checksums, training.labels, training.soft_labels, ["train"] * len(training))
