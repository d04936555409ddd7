"""Parquet shards of labelled images: one schema for real and synthetic sets.

Pixels are stored as raw bytes: reading them is one copy out of the Arrow buffer, an order of
magnitude quicker than decoding PNG, and the file's compression keeps them small.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemix.data.imageset import ImageSet
from gemix.data.manifest import SPLITS, Manifest, ShardEntry, combine_content
from gemix.errors import DataError
from gemix.storage import Store


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
    ]
)


def image_checksum(pixels: bytes | memoryview | np.ndarray) -> str:
    """BLAKE2b-128 of an image's bytes: 32 hex digits."""
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
) -> dict[str, list[Any]]:
    """The columns of `SCHEMA` but for the split, which `write_shard` fills in.

    Args:
        images: uint8 [N, C, H, W].
        soft_labels: float [N, K], rows sum to 1.
        class_index: N dominant classes, 0 to K - 1.
        patients, sources: N strings.
        seeds: N seeds of synthetic images, None for real ones.
        generator: checksum of the generator of synthetic images, None for real ones.
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
    }


def write_shard(
    store: Store, name: str, columns: Mapping[str, Sequence[Any]], split: str
) -> ShardEntry:
    """Writes one shard, whole or not at all.

    Args:
        store: the set's directory.
        name: file name, unique in the set, ending in ``.parquet``.
        columns: as :func:`to_columns` gives them.
        split: one of `SPLITS`.

    Raises:
        DataError: for no rows, an unknown split, or labels that are not distributions over the
            same classes with the class index among them.
    """
    return write_batches(store, name, [columns], split)


def write_batches(
    store: Store, name: str, batches: Iterable[Mapping[str, Sequence[Any]]], split: str
) -> ShardEntry:
    """The same from columns that come in pieces, of which one is held at a time."""
    sink = pa.BufferOutputStream()
    contents, counts = [], Counter[int]()
    with pq.ParquetWriter(
        sink, SCHEMA, compression="zstd", use_dictionary=["patient", "source", "split", "generator"]
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
            writer.write_table(pa.table({**columns, "split": [split] * count}, schema=SCHEMA))
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


def read_images(urls: Sequence[str], split: str | None = None) -> ImageSet:
    """Reads one or more shard sets as one, in the order given, shards by name.

    Every file is held against its SHA-256 and every image against its row checksum.

    Args:
        urls: directories with a manifest, local paths or ``s3://`` URLs.
        split: the split to read, None for all.

    Raises:
        DataError: if a set is unfinished or damaged, if sets differ in classes or image shape, or
            if there is no image of the split.
    """
    stores = [Store(url) for url in urls]
    manifests = [Manifest.load(store) for store in stores]
    _check_same(stores, manifests)
    chosen = [
        (store, manifest, shard)
        for store, manifest in zip(stores, manifests, strict=True)
        for shard in manifest.shards
        if split in (None, shard.split)
    ]
    if not chosen:
        raise DataError(
            f"{', '.join(store.url for store in stores)}: no image of split {split!r}; add scans, "
            "or raise data.val_fraction or data.test_fraction, and run gemix prepare again"
        )
    first = manifests[0]
    shape = first.image_shape
    ends = np.cumsum([shard.rows for *_, shard in chosen]).tolist()
    images = np.empty((ends[-1], *shape), dtype=np.uint8)

    def read(part: tuple[Store, Manifest, ShardEntry], end: int) -> pa.Table:
        store, manifest, shard = part
        table = read_table(store, manifest, shard)
        copy_images(f"{store.url}/{shard.name}", table, images[end - shard.rows : end])
        return table.drop_columns(["image"])

    # hashing and decompressing leave the interpreter to others, so threads do keep cores busy
    with ThreadPoolExecutor(pa.cpu_count()) as pool:
        rows = pa.concat_tables(pool.map(read, chosen, ends))
    classes = len(first.classes)
    soft_labels = rows["soft_label"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return ImageSet(
        images=images,
        labels=rows["class_index"].to_numpy().astype(np.int64),
        soft_labels=soft_labels.reshape(-1, classes).astype(np.float32),
        groups=tuple(rows["patient"].to_pylist()),
        sources=tuple(rows["source"].to_pylist()),
        classes=first.classes,
        digest=combine_content(shard.content for *_, shard in chosen),
    )


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
    """The sum of the rows' BLAKE2b-256 hashes; see :class:`ShardEntry`."""
    rows = zip(checksums, indices.tolist(), labels.astype("<f4"), splits, strict=True)
    return combine_content(
        hashlib.blake2b(
            f"{checksum}:{index}:{split}:".encode() + label.tobytes(), digest_size=32
        ).hexdigest()
        for checksum, index, label, split in rows
    )


def _check_same(stores: Sequence[Store], manifests: Sequence[Manifest]) -> None:
    """All sets must have the classes and the image shape of the first."""
    describe = lambda m: (  # noqa: E731
        f"classes {list(m.classes)}, {m.channels} x {m.resolution} x {m.resolution} pixels"
    )
    for store, manifest in zip(stores, manifests, strict=True):
        if describe(manifest) != describe(manifests[0]):
            raise DataError(
                f"{store.url}: {describe(manifest)}, but {stores[0].url} has "
                f"{describe(manifests[0])}; write one of them again so that they agree"
            )


def read_table(store: Store, manifest: Manifest, shard: ShardEntry) -> pa.Table:
    """One shard, all columns, held against its SHA-256.

    Raises:
        DataError: if the file is missing, damaged or not of `SCHEMA`.
    """
    where, remedy = f"{store.url}/{shard.name}", damage_remedy(manifest)
    data = store.read_bytes(shard.name)
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise DataError(f"{where}: damaged, its SHA-256 is not the manifest's; {remedy}")
    table = pq.read_table(pa.BufferReader(data))
    if not table.schema.equals(SCHEMA) or table.num_rows != shard.rows:
        raise DataError(f"{where}: not a shard of this schema and length; {remedy}")
    return table


def damage_remedy(manifest: Manifest) -> str:
    """What to do about a damaged shard of the set."""
    step = "gemix prepare" if manifest.kind == "real" else "gemix synthesize"
    return f"restore the file from a copy, or write the set again: {step} --overwrite"


def copy_images(where: str, table: pa.Table, target: np.ndarray) -> None:
    """Copies the image column into `target`, uint8 [rows, C, H, W], and checks every row.

    Raises:
        DataError: naming `where`, for an image of another size or that fails its checksum.
    """
    flat, start = target.reshape(len(target), -1), 0
    for chunk in table["image"].chunks:
        _, offsets, values = chunk.buffers()
        # a chunk may be a slice of its buffers, so the offsets say where it begins
        bounds = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        pixels = np.frombuffer(values, np.uint8)[bounds[0] : bounds[-1]]
        if (np.diff(bounds) != flat.shape[1]).any():
            raise DataError(f"{where}: an image of another size than the manifest says")
        flat[start : start + len(chunk)] = pixels.reshape(len(chunk), -1)
        start += len(chunk)
    for row, expected in zip(flat, table["checksum"].to_pylist(), strict=True):
        if image_checksum(row) != expected:
            raise DataError(f"{where}: an image's bytes differ from its checksum {expected}")
