"""Parquet shards of labelled images: one schema for real and synthetic sets.

Pixels are stored as raw bytes: reading them is one copy out of the Arrow buffer, an order of
magnitude quicker than decoding PNG, and the file's compression keeps them small.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemix.core.errors import DataError
from gemix.data.shards.manifest import SPLITS, ShardEntry, combine_content
from gemix.io.storage import Store

# Level of zstd for the pixels. Against the usual 1 they are unpacked in half of the time (CT) or
# a fifth (phantom), a whole set is read in two thirds, and the files are an eighth larger.
_PIXEL_LEVEL = -1
_CLASSES = b"gemix.classes"  # key of a file's metadata: a JSON list


def _field(name: str, kind: pa.DataType, meaning: str, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": meaning})


SCHEMA = pa.schema(
    [
        _field("image", pa.binary(), "pixels, uint8, row-major [channels, height, width]"),
        _field("channels", pa.int32(), "1 (grey) or 3 (RGB)"),
        _field("height", pa.int32(), "pixels"),
        _field("width", pa.int32(), "pixels"),
        _field("class_index", pa.int32(), "dominant class, an index into the manifest's classes"),
        _field("soft_label", pa.list_(pa.float32()), "one weight a class, summing to 1"),
        _field("patient", pa.string(), "group key; images of one patient or block share it"),
        _field("source", pa.string(), "the file, phantom slice or generator it came from"),
        _field("split", pa.string(), "train, val or test"),
        _field("checksum", pa.string(), "BLAKE2b-128 of the image bytes, hex"),
        _field("seed", pa.int64(), "seed of a synthetic image, null for a real one", True),
        _field("generator", pa.string(), "checksum of the generator, null for a real image", True),
        _field(
            "asked_label",
            pa.list_(pa.float32()),
            "label that the generator was given, null for a real image",
            True,
        ),
        _field(
            "seen_labels",
            pa.list_(pa.list_(pa.float32())),
            "class probabilities by the teachers that looked at the image, null if none did",
            True,
        ),
    ]
)
_FIRST_SCHEMA = pa.schema(list(SCHEMA)[:12])  # of sets written before labels were checked


def is_shard_schema(schema: pa.Schema) -> bool:
    """Return whether a file has the schema of shards, of today or of earlier versions."""
    return schema.equals(SCHEMA) or schema.equals(_FIRST_SCHEMA)


def weights_of(column: pa.ChunkedArray, *shape: int) -> np.ndarray:
    """Return a column of lists (of lists) of numbers as an array [N, *shape].

    Raises:
        ValueError: if they have not this shape.
    """
    values = column.combine_chunks()
    while pa.types.is_list(values.type):
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False).reshape(len(column), *shape)


def image_checksum(pixels: bytes | memoryview | np.ndarray) -> str:
    """Return the BLAKE2b-128 of an image's bytes: 32 hex digits."""
    return hashlib.blake2b(pixels, digest_size=16).hexdigest()


def to_columns(
    images: np.ndarray,
    soft_labels: np.ndarray,
    *,
    class_index: Sequence[int],
    patients: Sequence[str],
    sources: Sequence[str],
    seeds: Sequence[int] | None = None,
    generator: str | None = None,
    asked: np.ndarray | None = None,
    seen: np.ndarray | None = None,
) -> dict[str, list[Any]]:
    """Build the columns of `SCHEMA` but for the split, which `write_shard` fills in.

    Args:
        images: uint8 [N, C, H, W].
        soft_labels: float [N, K], rows sum to 1.
        class_index: N dominant classes, 0 to K - 1.
        patients, sources: N strings.
        seeds: N seeds of synthetic images, None for real ones.
        generator: checksum of the generator of synthetic images, None for real ones.
        asked: labels given to the generator, float [N, K]; None for real images.
        seen: class probabilities by T teachers, float [N, T, K], NaN where a teacher did not look;
            None without teachers.
    """
    count, channels, height, width = images.shape
    pixels = [image.tobytes() for image in images]
    return {
        "image": pixels,
        "channels": [channels] * count,
        "height": [height] * count,
        "width": [width] * count,
        "class_index": [int(index) for index in class_index],
        "soft_label": list(np.asarray(soft_labels, dtype=np.float32)),
        "patient": list(patients),
        "source": list(sources),
        "checksum": [image_checksum(data) for data in pixels],
        "seed": [None] * count if seeds is None else [int(seed) for seed in seeds],
        "generator": [generator] * count,
        "asked_label": [None] * count if asked is None else list(np.float32(asked)),
        "seen_labels": [None] * count
        if seen is None
        else list(map(_by_teachers, np.float32(seen))),
    }


def _by_teachers(seen: np.ndarray) -> list[list[float]] | None:
    """Return the probabilities by the teachers that looked, of [T, K]; None if none did."""
    return seen[~np.isnan(seen).any(axis=1)].tolist() or None


def write_shard(
    store: Store,
    name: str,
    columns: Mapping[str, Sequence[Any]],
    split: str,
    classes: Sequence[str] | None = None,
) -> ShardEntry:
    """Write one shard, whole or not at all.

    Args:
        store: the set's directory.
        name: file name, unique in the set, ending in ``.parquet``.
        columns: as :func:`to_columns` gives them; nullable ones may be missing.
        split: one of `SPLITS`.
        classes: class names, written into the file so that readers can check the manifest's.

    Raises:
        DataError: for no rows, an unknown split, or labels that are not distributions over the
            same classes with the class index among them.
    """
    return write_batches(store, name, [columns], split, classes)


def write_batches(
    store: Store,
    name: str,
    batches: Iterable[Mapping[str, Sequence[Any]]],
    split: str,
    classes: Sequence[str] | None = None,
) -> ShardEntry:
    """Write one shard from columns that come in pieces, of which one is held at a time.

    See :func:`write_shard`.
    """
    sink = pa.BufferOutputStream()
    metadata = {_CLASSES: json.dumps([*classes]).encode()} if classes else None
    contents, counts = [], Counter[int]()
    with pq.ParquetWriter(
        sink,
        SCHEMA.with_metadata(metadata),
        compression="zstd",
        compression_level={"image": _PIXEL_LEVEL},
        use_dictionary=["patient", "source", "split", "generator"],
        write_page_checksum=True,  # for readers of some columns, which cannot check the file
    ) as writer:
        for columns in batches:
            count = len(columns["image"])
            if count == 0 or split not in SPLITS:
                raise DataError(
                    f"shard {name}: {count} rows of split {split!r}; wanted: rows of {SPLITS}"
                )
            labels = np.asarray(columns["soft_label"], dtype=np.float32)
            indices = np.asarray(columns["class_index"])
            _check_labels(name, labels, indices)
            nulls = {field.name: pa.nulls(count, field.type) for field in SCHEMA if field.nullable}
            rows = {**nulls, **columns, "split": [split] * count}
            writer.write_table(pa.table(rows, schema=SCHEMA))
            contents.append(content_hash(columns["checksum"], indices, labels, [split] * count))
            counts.update(indices.tolist())
    data = sink.getvalue().to_pybytes()
    store.write_bytes(name, data)
    return ShardEntry(
        name=name,
        split=split,
        rows=counts.total(),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        class_counts=tuple(counts[index] for index in range(labels.shape[1])),
        content=combine_content(contents),
    )


def class_names_of(schema: pa.Schema) -> list[str] | None:
    """Return the class names in a shard's file; None where an earlier version wrote it."""
    found = (schema.metadata or {}).get(_CLASSES)
    return json.loads(found) if found else None


def _check_labels(name: str, labels: np.ndarray, indices: np.ndarray) -> None:
    if labels.ndim != 2 or not np.isfinite(labels).all() or (labels < 0).any():
        raise DataError(f"shard {name}: soft labels must be non-negative, one weight a class")
    off = np.abs(labels.sum(axis=1, dtype=np.float64) - 1)
    if off.max() > 1e-5:
        row = int(off.argmax())
        raise DataError(
            f"shard {name}: the soft label of row {row}, {labels[row].tolist()}, does not sum to 1"
        )
    if indices.min() < 0 or indices.max() >= labels.shape[1]:
        raise DataError(f"shard {name}: a class index outside 0 to {labels.shape[1] - 1}")


def content_hash(
    checksums: Sequence[str], indices: np.ndarray, labels: np.ndarray, splits: Sequence[str]
) -> str:
    """Combine the BLAKE2b-256 hashes of rows; see :class:`ShardEntry`."""
    rows = zip(checksums, indices.tolist(), labels.astype("<f4"), splits, strict=True)
    return combine_content(
        hashlib.blake2b(
            f"{checksum}:{index}:{split}:".encode() + label.tobytes(), digest_size=32
        ).hexdigest()
        for checksum, index, label, split in rows
    )
