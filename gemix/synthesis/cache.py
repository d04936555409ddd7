"""Synthetic images by what they are made of, shared by all that ask for them.

Image i of a set is a function of its seed, its label and how the generator is sampled, so a set of
N images begins with the smaller ones. Blocks of images lie in a directory that is named after all
the rest, and beside each block what a teacher sees in it: sets that differ in where their labels
come from have the same images. Files may be deleted at any time.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemix.core.errors import DataError
from gemix.data.image_set import ImageSet, combine_digests, concatenate
from gemix.data.shards.reading import copy_images
from gemix.data.shards.schema import content_hash, image_checksum, weights_of
from gemix.gan.checkpoints.generator_io import GeneratorBundle
from gemix.io.storage import Store
from gemix.labels import LabelConfig
from gemix.synthesis.config import SynthesisConfig
from gemix.synthesis.labelling import training_labels
from gemix.synthesis.shards import rows_digest, write_synthetic_shard
from gemix.synthesis.teacher import Teachers

BLOCK = 128  # images of a file; part of the address, so never change it
_COLUMNS = ("image", "class_index", "soft_label", "patient", "source")
_SEEN = "seen"  # column of a file beside a block: class probabilities by the first teacher


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
        # neither who gives an image its label nor who measures fidelity changes the image
        unmeasured = dataclasses.replace(config, fidelity_images=0)
        drawing = dataclasses.replace(unmeasured, labels="asked", mixture=SynthesisConfig.mixture)
        accepting = teachers if drawing.needs_teacher else None
        folder = self._store / rows_digest(generator, method, labels, drawing, accepting)
        starts = range(0, count, BLOCK)

        def block(start: int) -> pa.Table:
            name = f"{start:09d}.parquet"
            write = functools.partial(
                write_synthetic_shard,
                folder,
                name,
                generator,
                method,
                start=start,
                count=BLOCK,
                labels=labels,
                config=drawing,
                teachers=accepting,
            )
            return _read(folder, name, _COLUMNS, write)

        blocks = [block(start) for start in starts]
        rows = pa.concat_tables(blocks).slice(0, count)
        asked = weights_of(rows["soft_label"], len(generator.classes)).astype(np.float32)
        soft_labels, class_index = asked, rows["class_index"].to_numpy().astype(np.int64)
        if config.labels != "asked":
            pairs = zip(starts, blocks, strict=True)
            seen = [_seen(folder, start, block, generator, teachers) for start, block in pairs]
            soft_labels = training_labels(asked, np.concatenate(seen)[:count, None], config)
            class_index = soft_labels.argmax(axis=1)
        return ImageSet(
            images=_pixels(folder, rows, generator),
            labels=class_index,
            soft_labels=soft_labels,
            groups=tuple(rows["patient"].to_pylist()),
            sources=tuple(rows["source"].to_pylist()),
            classes=generator.classes,
            digest=combine_digests(
                [rows_digest(generator, method, labels, unmeasured, teachers), str(count)]
            ),
        )


def _read(
    folder: Store, name: str, columns: Sequence[str], write: Callable[[], object]
) -> pa.Table:
    """Return columns of a file; write it if it is missing or damaged."""
    if folder.exists(name):
        try:
            return folder.read_columns(name, columns)
        except DataError:
            folder.delete(name)
    write()
    return folder.read_columns(name, columns)


def _seen(
    folder: Store, start: int, block: pa.Table, generator: GeneratorBundle, teachers: Teachers
) -> np.ndarray:
    """Return what the first teacher sees in the images of a block, float32 [N, K]."""
    name = f"{start:09d}-seen-{teachers.rows[0].checksum[:32]}.parquet"

    def write() -> None:
        seen = teachers.probabilities(_pixels(folder, block, generator), slice(1))[:, 0]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({_SEEN: list(seen)}), sink, write_page_checksum=True)
        folder.write_bytes(name, sink.getvalue().to_pybytes())

    table = _read(folder, name, (_SEEN,), write)
    return weights_of(table[_SEEN], len(generator.classes)).astype(np.float32)


def _pixels(folder: Store, rows: pa.Table, generator: GeneratorBundle) -> np.ndarray:
    """Return the images of some rows, uint8 [N, C, R, R]."""
    architecture = generator.network.architecture
    side, channels = architecture.resolution, architecture.img_channels
    images = np.empty((len(rows), channels, side, side), np.uint8)
    copy_images(folder.url, rows, images)
    return images


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
