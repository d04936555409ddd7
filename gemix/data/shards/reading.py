"""Read shard sets whole, checking each file against its SHA-256."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemix.core.errors import DataError
from gemix.data.image_set import ImageSet
from gemix.data.pixel_memory import allocate_pixels
from gemix.data.shards.manifest import MANIFEST, Manifest, ShardEntry, combine_content
from gemix.data.shards.schema import class_names_of, is_shard_schema, weights_of
from gemix.data.shards.seal import check_not_sealed
from gemix.io.storage import Store

_COLUMNS = ("class_index", "soft_label", "patient", "source")  # beside the images
_BATCH_BYTES = 2**22  # of pixels that are decompressed at a time and copied while in the cache


def read_images(
    urls: Sequence[str],
    split: str | None = None,
    classes: Sequence[str] | None = None,
    *,
    memory_bytes: float = math.inf,
) -> ImageSet:
    """Read one or more shard sets as one, in the order given, shards by name.

    Sets that have the same classes in different orders are matched by the classes' names.

    Every file is checked against its SHA-256, which covers its rows. The checksums of single rows,
    which would take as long as all the rest, are left to :mod:`gemix.data.shards.verify`.

    Args:
        urls: directories with a manifest, local paths or ``s3://`` URLs.
        split: the split to read, None for all.
        classes: the order of the classes; None for that of the first set.
        memory_bytes: pixels that may lie in memory; more lie in a temporary file.

    Raises:
        DataError: if a set is unfinished or damaged, if sets differ in classes or image shape, or
            if there is no image of the split.
        DiskFullError: if there is no room for that file.
    """
    stores = [Store(url) for url in urls]
    manifests = [Manifest.load(store) for store in stores]
    classes = manifests[0].classes if classes is None else tuple(classes)
    _check_same(stores, manifests, classes)
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
    images = allocate_pixels((ends[-1], *shape), memory_bytes)

    def read(
        part: tuple[Store, Manifest, ShardEntry], end: int
    ) -> tuple[pa.Table, np.ndarray, np.ndarray]:
        store, manifest, shard = part
        file, where = _checked_file(store, manifest, shard), f"{store.url}/{shard.name}"
        start = end - shard.rows
        for batch in file.iter_batches(_batch_rows(first), columns=["image"], use_threads=False):
            copy_images(where, pa.table(batch), images[start : start + len(batch)])
            start += len(batch)
        table = file.read(columns=list(_COLUMNS), use_threads=False)
        _check_counts(where, table, shard, manifest)
        order = manifest.class_order(classes)
        labels = np.argsort(order)[table["class_index"].to_numpy()]
        soft_labels = weights_of(table["soft_label"], len(classes)).astype(np.float32)
        return table.select(["patient", "source"]), labels, soft_labels[:, order]

    # hashing and decompressing leave the interpreter to others, so threads do keep cores busy
    with ThreadPoolExecutor(pa.cpu_count()) as pool:
        tables, labels, soft_labels = zip(*pool.map(read, chosen, ends), strict=True)
    rows = pa.concat_tables(tables)
    return ImageSet(
        images=images,
        labels=np.concatenate(labels),
        soft_labels=np.concatenate(soft_labels),
        groups=tuple(rows["patient"].to_pylist()),
        sources=tuple(rows["source"].to_pylist()),
        classes=classes,
        digest=combine_content(manifest.content_digest(split, classes) for manifest in manifests),
    )


def _check_same(
    stores: Sequence[Store], manifests: Sequence[Manifest], classes: Sequence[str]
) -> None:
    """Raise DataError for a set of other classes than these, or another shape than the first."""
    wanted = f"the classes {list(classes)}, {_shape(manifests[0])}"
    for store, manifest in zip(stores, manifests, strict=True):
        if not manifest.matches(classes, manifests[0].image_shape):
            raise DataError(
                f"{store.url}: classes {list(manifest.classes)}, {_shape(manifest)}, but "
                f"{stores[0].url} is read with {wanted}; write one of them again so that they agree"
            )


def _shape(manifest: Manifest) -> str:
    return f"{' x '.join(map(str, manifest.image_shape))} pixels"


def read_table(store: Store, manifest: Manifest, shard: ShardEntry) -> pa.Table:
    """Read all columns of one shard, checking its SHA-256.

    Raises:
        DataError: if the file is missing, damaged or not of the shard schema.
    """
    table = _checked_file(store, manifest, shard).read()
    _check_counts(f"{store.url}/{shard.name}", table, shard, manifest)
    return table


def _checked_file(store: Store, manifest: Manifest, shard: ShardEntry) -> pq.ParquetFile:
    """Open the shard's file in memory; see :func:`read_table`."""
    where, remedy = f"{store.url}/{shard.name}", damage_remedy(manifest)
    check_not_sealed(shard.split, where)
    data = _bytes_of(store, shard.name)
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise DataError(f"{where}: damaged, its SHA-256 is not the manifest's; {remedy}")
    file = pq.ParquetFile(pa.BufferReader(data))
    if not is_shard_schema(file.schema_arrow) or file.metadata.num_rows != shard.rows:
        raise DataError(f"{where}: not a shard of this schema and length; {remedy}")
    names = class_names_of(file.schema_arrow)
    if names is not None and names != list(manifest.classes):
        raise DataError(
            f"{where}: written for the classes {names}, but {MANIFEST} names "
            f"{list(manifest.classes)}; restore {MANIFEST} from a copy, or {_again(manifest)}"
        )
    return file


def _check_counts(where: str, table: pa.Table, shard: ShardEntry, manifest: Manifest) -> None:
    """Raise DataError if the images of each class are not as many as the manifest says."""
    indices = table["class_index"].to_numpy()
    classes = len(manifest.classes)
    is_inside = (indices >= 0) & (indices < classes)
    counts = tuple(np.bincount(indices[is_inside], minlength=classes).tolist())
    if not is_inside.all() or counts != shard.class_counts:
        raise DataError(
            f"{where}: images by class {counts}, but class_counts in {MANIFEST} is "
            f"{shard.class_counts}; restore {MANIFEST} from a copy, or {_again(manifest)}"
        )


def _bytes_of(store: Store, name: str) -> pa.Buffer:
    """Return the file's bytes; those of a local one in memory of Arrow's pool.

    The pool reuses its pages, where Python asks the system for fresh ones each time, which takes as
    long as decompressing.
    """
    if store.is_local and store.exists(name):
        with contextlib.suppress(OSError), pa.OSFile(store.path(name)) as file:
            return file.read_buffer()
    return pa.py_buffer(store.read_bytes(name))


def _batch_rows(manifest: Manifest) -> int:
    """Return how many images to decompress at a time."""
    return max(1, _BATCH_BYTES // math.prod(manifest.image_shape))


def damage_remedy(manifest: Manifest) -> str:
    """Return what to do about a damaged shard of the set."""
    return f"restore the file from a copy, or {_again(manifest)}"


def _again(manifest: Manifest) -> str:
    step = "gemix prepare" if manifest.kind == "real" else "gemix synthesize"
    return f"write the set again: {step} --overwrite"


def copy_images(where: str, table: pa.Table, target: np.ndarray) -> None:
    """Copy the image column into `target`, uint8 [rows, C, H, W].

    Raises:
        DataError: naming `where`, for an image of another size.
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
