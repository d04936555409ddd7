"""Index of all staged images: small columns, tens of bytes an image, in the listing's order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from gemix.data.prepare.staging import Staged
from gemix.data.shards.manifest import SPLITS
from gemix.io.storage import Store

NO_SPLIT = -1

_COLUMNS = ("class_index", "group", "split", "checksum", "key_hash")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """Columns of N staged images.

    Attributes:
        parts: names of the files that they wait in.
        part, row: int32 [N], which of `parts` and where in it.
        class_index: int32 [N].
        group: int64 [N], an index into `group_names`, or -1 where the patient is not known.
        group_names: of the patients.
        split: int8 [N], an index into `SPLITS`, or `NO_SPLIT` where the source has none.
        checksum: uint64 [N, 2].
        key_hash: uint64 [N].
    """

    parts: tuple[str, ...]
    part: np.ndarray
    row: np.ndarray
    class_index: np.ndarray
    group: np.ndarray
    group_names: Sequence[str]
    split: np.ndarray
    checksum: np.ndarray
    key_hash: np.ndarray

    def __len__(self) -> int:
        return len(self.part)


def read_index(store: Store, staged: Sequence[Staged]) -> Index:
    """Read the index of all parts that have images.

    Raises:
        DataError: if a part cannot be read.
    """
    parts = [part for part in staged if part.rows]
    tables = [store.read_columns(part.name, _COLUMNS) for part in parts]
    whole = pa.concat_tables(tables)
    groups = whole["group"].combine_chunks().dictionary_encode()
    splits = whole["split"].combine_chunks().dictionary_encode()
    # the last entry stands for null, whose code becomes -1
    codes = np.array([SPLITS.index(name) for name in splits.dictionary.to_pylist()] + [NO_SPLIT])
    checksums = whole["checksum"].combine_chunks()
    return Index(
        parts=tuple(part.name for part in parts),
        part=np.repeat(np.arange(len(parts), dtype=np.int32), [part.rows for part in parts]),
        row=np.concatenate([np.arange(part.rows, dtype=np.int32) for part in parts]),
        class_index=whole["class_index"].to_numpy(),
        group=_codes(groups).astype(np.int64),
        group_names=groups.dictionary.to_pylist(),
        split=codes[_codes(splits)].astype(np.int8),
        checksum=np.frombuffer(checksums.buffers()[1], np.uint64).reshape(-1, 2)[: len(whole)],
        key_hash=whole["key_hash"].to_numpy(),
    )


def _codes(column: pa.DictionaryArray) -> np.ndarray:
    return column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
