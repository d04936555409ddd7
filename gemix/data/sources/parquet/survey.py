"""Survey of Parquet files with images: the small columns that listing needs.

A value that is repeated takes next to nothing in a file, so texts stay dictionary-encoded until
their lengths are known.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gemix.data.shards.manifest import SPLITS
from gemix.data.sources.parquet.rows import DAMAGE, column_bytes, one_line
from gemix.io.s3 import retry
from gemix.io.storage import Store

_TEXTS = ("class", "patient", "split", "checksum")
_TEXT_BYTES = 1024  # of a text in such a column
_FREE_BYTES = 2**20  # a column of any number of rows may take so much


def survey(store: Store, label: str, name: str) -> pa.Table | str:
    """Read what listing needs of a file, or return why the file cannot be used. No image is read.

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
            schema, metadata = parquet.schema_arrow, parquet.metadata
            if problem := _problem(schema, label) or _excess(metadata, file.size()):
                return problem
            wanted = ["height", "width", label, "patient", "split"]
            columns = [column for column in wanted if column in schema.names]
            # a text that is repeated stays one until its length is known
            texts = [column for column in columns if _is_text(schema.field(column).type)]
            parquet = pq.ParquetFile(file, metadata=metadata, read_dictionary=texts)
            table = parquet.read(columns=columns)
            return _too_long(table) or table

    try:
        found = retry(read, f"{store.url}/{name} cannot be read")
        return found if isinstance(found, str) else _to_items(name, found, label)
    except DAMAGE as error:
        return f"damaged, or no Parquet file ({one_line(error)})"


def _problem(schema: pa.Schema, label: str) -> str:
    """Return what is wrong with the columns, empty if nothing is."""
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


def _excess(metadata: pq.FileMetaData, file_bytes: int) -> str:
    """Return what makes the small columns too large for the file, empty if nothing does."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    if rows > file_bytes:
        return f"{rows} rows in {file_bytes} bytes"
    for group in groups:
        for column, size in column_bytes(group).items():
            if column in _TEXTS and size > (most := _TEXT_BYTES * group.num_rows + _FREE_BYTES):
                return f"{size} bytes of text in a row group of the column {column}, over {most}"
    return ""


def _too_long(table: pa.Table) -> str:
    """Return what is wrong with the lengths of texts, empty if nothing is."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        for chunk in column.chunks if pa.types.is_dictionary(column.type) else ():
            longest = pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0
            if longest > _TEXT_BYTES:
                return f"a text of {longest} bytes in the column {name}, over {_TEXT_BYTES}"
    return ""


def _is_text(kind: pa.DataType) -> bool:
    """Return whether values are text, dictionary-encoded or not; null is a column of no value."""
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
