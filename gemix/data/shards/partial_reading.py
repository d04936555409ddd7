"""Read parts of a shard set: some rows, or the labels alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from gemix.core.errors import DataError
from gemix.data.shards.manifest import Manifest, ShardEntry
from gemix.data.shards.reading import copy_images, damage_remedy, read_table
from gemix.data.shards.schema import weights_of
from gemix.data.shards.seal import check_not_sealed
from gemix.io.storage import Store


def read_rows(store: Store, manifest: Manifest, shard: ShardEntry, rows: np.ndarray) -> np.ndarray:
    """Read the images of some rows of a shard, checking the file's SHA-256.

    Args:
        rows: int64 [n], ascending, 0 to ``shard.rows - 1``.

    Returns:
        uint8 [n, C, H, W].

    Raises:
        DataError: naming the file, if it is missing or damaged.
    """
    table = read_table(store, manifest, shard).select(["image", "checksum"])
    images = np.empty((len(rows), *manifest.image_shape), dtype=np.uint8)
    copy_images(f"{store.url}/{shard.name}", table.take(rows), images)
    return images


def read_soft_labels(store: Store, manifest: Manifest, split: str) -> np.ndarray:
    """Read the soft labels of a split, shards by name, and no other column.

    Damage elsewhere in a file is found by :func:`read_rows`.

    Returns:
        float32 [N, K].

    Raises:
        DataError: naming the file, if it is missing or its labels cannot be read.
    """
    check_not_sealed(split, store.url)
    classes, parts = len(manifest.classes), [np.empty((0, len(manifest.classes)), np.float32)]
    for shard in manifest.shards_of(split):
        try:
            column = store.read_columns(shard.name, ["soft_label"])["soft_label"]
            parts.append(weights_of(column, classes))
        except (DataError, ValueError, pa.ArrowException) as error:
            raise DataError(
                f"{store.url}/{shard.name}: its labels cannot be read ({error}); "
                f"{damage_remedy(manifest)}"
            ) from error
    return np.concatenate(parts)
