"""Images in Parquet files: the small columns of a file, and single rows in the order of asking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gemix.data.manifest import SPLITS
from gemix.data.pixels.decode import check_size
from gemix.data.scan import BadImage
from gemix.data.shards import image_checksum
from gemix.s3 import persist
from gemix.storage import Store

_PIXELS = ("image", "channels", "height", "width")
_BATCH = 64  # rows that are decoded at a time
_BUFFER_BYTES = 4 * 2**20  # of a file that are read at a time, however long its row groups are
_DAMAGE = (OSError, ValueError, pa.ArrowException)


def survey(store: Store, label: str, name: str) -> pa.Table | str:
    """What listing needs of a file, or in words why the file is of no use. No image is read.

    Args:
        store: where the file is.
        label: the column of the class, "class_index" or "class".
        name: of the file.

    Returns:
        One row each: key, class (int32 or string), group, split and box.
    """

    def read() -> pa.Table | str:
        with store.filesystem.open_input_file(store.path(name)) as file:
            parquet = pq.ParquetFile(file)
            schema = parquet.schema_arrow
            if problem := _problem(schema, label):
                return problem
            wanted = ["height", "width", label, "patient", "split"]
            return parquet.read(columns=[column for column in wanted if column in schema.names])

    try:
        found = persist(read, f"{store.url}/{name} cannot be read")
        return found if isinstance(found, str) else _to_items(name, found, label)
    except _DAMAGE as error:
        return f"damaged, or no Parquet file ({_one_line(error)})"


def _problem(schema: pa.Schema, label: str) -> str:
    """What is wrong with the columns, empty if nothing is."""
    checks = {
        "image": ("bytes", _is_bytes),
        "channels": ("integers", pa.types.is_integer),
        "height": ("integers", pa.types.is_integer),
        "width": ("integers", pa.types.is_integer),
        label: ("integers", pa.types.is_integer) if label == "class_index" else ("text", _is_text),
    }
    for column, (wanted, is_right) in checks.items():
        if column not in schema.names:
            return f"no column {column}; found {', '.join(schema.names) or 'none'}"
        if not is_right(schema.field(column).type):
            return f"column {column} holds {schema.field(column).type}; wanted: {wanted}"
    for column in ("patient", "split", "checksum"):
        if column in schema.names and not _is_text(schema.field(column).type):
            return f"column {column} holds {schema.field(column).type}; wanted: text"
    return ""


def _is_text(kind: pa.DataType) -> bool:
    """Null is the type of a column without a value; of categories, those of text will do."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_null)
    return any(is_kind(kind) for is_kind in kinds)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _to_items(name: str, table: pa.Table, label: str) -> pa.Table | str:
    empty = pa.nulls(len(table), pa.string())
    given = {
        column: table[column].cast(pa.string()) if column in table.column_names else empty
        for column in ("patient", "split")
    }
    groups, splits = (pc.if_else(pc.equal(column, ""), None, column) for column in given.values())
    strange = set(pc.unique(splits).to_pylist()) - {None, *SPLITS}
    if strange:
        return f"column split holds {min(strange)!r}; wanted: train, val, test or nothing"
    width, height = (
        np.asarray(table[column].cast(pa.int32()).fill_null(0)) for column in ("width", "height")
    )
    corners = np.stack([0 * width, 0 * width, width, height], axis=1)
    offsets = np.arange(0, corners.size + 1, 4, dtype=np.int32)
    return pa.table(
        {
            "key": pa.array([f"{name}#row-{row:06d}" for row in range(len(table))], pa.string()),
            "class": table[label].cast(pa.int32() if label == "class_index" else pa.string()),
            "group": groups,
            "split": splits,
            "box": pa.ListArray.from_arrays(offsets, corners.ravel()),
        }
    )


class RowGroup:
    """The rows of one row group, a few decoded at a time; quick if asked for in their order.

    Args:
        store: where the file is.
        name: of the file.
        row: of the file, any that is in the row group.

    Raises:
        BadImage: if the file cannot be read or has no such row.
    """

    def __init__(self, store: Store, name: str, row: int):
        self.store, self.name = store, name
        self._damage = ""
        try:
            persist(lambda: self._open(row), self._what)
        except _DAMAGE as error:
            reason = f"damaged or no Parquet file ({_one_line(error)}); copy it again"
            raise BadImage(reason) from None

    def holds(self, name: str, row: int) -> bool:
        """Whether the row is in it and not behind those that are decoded."""
        return name == self.name and self.start <= row < self.end

    def image(self, row: int) -> np.ndarray:
        """The pixels of a row, uint8 [H, W].

        Raises:
            BadImage: if they are damaged or no grey image.
        """
        try:
            if not self._damage:
                persist(lambda: self._advance(row), self._what)
        except (*_DAMAGE, StopIteration) as error:
            self._damage = _one_line(error) or "it ends too early"
        if self._damage:
            raise BadImage(f"damaged row group ({self._damage}); copy the file again")
        return _decode(self._rows[row - self.start])

    @property
    def _what(self) -> str:
        return f"{self.store.url}/{self.name} cannot be read"

    def _open(self, row: int) -> None:
        """Puts `start` at the first row of the group; nothing of it is decoded yet."""
        file = self.store.filesystem.open_input_file(self.store.path(self.name))
        # Arrow's pre-buffering would hold the whole row group, which others write at any size
        parquet = pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        metadata = parquet.metadata
        if row >= metadata.num_rows:
            raise BadImage(f"the file has only {metadata.num_rows} rows now; run again")
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        ends = np.cumsum(sizes)
        group = int(np.searchsorted(ends, row, side="right"))
        self.start, self.end = int(ends[group]) - sizes[group], int(ends[group])
        columns = [*_PIXELS, "checksum"]
        self._batches: Iterator[pa.RecordBatch] | None = parquet.iter_batches(
            _BATCH,
            row_groups=[group],
            columns=[column for column in columns if column in parquet.schema_arrow.names],
        )
        self._rows: list[dict[str, Any]] = []

    def _advance(self, row: int) -> None:
        """Decodes up to the row; after an error, as of a store that is away, from the start."""
        if self._batches is None:
            self._open(row)
        batches, self._batches = self._batches, None
        while row >= self.start + len(self._rows):
            self.start += len(self._rows)
            self._rows = next(batches).to_pylist()
        self._batches = batches


def _decode(values: dict[str, Any]) -> np.ndarray:
    """Raises BadImage for what is not one grey image whose bytes are as they were written."""
    data, channels, height, width = (values.get(column) for column in _PIXELS)
    if data is None or channels is None or height is None or width is None:
        raise BadImage("no value in image, channels, height or width; write the row again")
    if channels != 1:
        raise BadImage(f"{channels} channels; grey images of one channel are read")
    check_size(width, height)
    if len(data) != height * width:
        raise BadImage(
            f"{len(data)} bytes for {width} x {height} pixels of one byte; write the row again"
        )
    checksum = values.get("checksum")
    if checksum and image_checksum(data) != checksum:
        raise BadImage(f"its bytes differ from its checksum {checksum}; copy the file again")
    return np.frombuffer(data, np.uint8).reshape(height, width)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
