"""Read single rows of Parquet files with images.

A value that is repeated takes next to nothing in a file. So the sizes of a row group's images are
read first, the images only if they have about as many bytes as these say, and few at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemix.data.preprocessing.decode import MAX_SIDE, check_size
from gemix.data.scan import InvalidImageError
from gemix.data.shards.schema import image_checksum
from gemix.io.s3 import retry
from gemix.io.storage import Store

DAMAGE = (OSError, ValueError, KeyError, pa.ArrowException)
"""Errors that reading a damaged file raises."""

_SIZES = ("channels", "height", "width")
_OVERHEAD = 4  # pages may repeat their least and greatest image as statistics
_BATCH = 4  # rows that are decoded at a time; more are not quicker
_BATCH_BYTES = 2**29  # or fewer rows, if they could be as many bytes
_FREE_BYTES = 2**20  # the images of any number of rows may take so much
_BUFFER_BYTES = 4 * 2**20  # of a file that are read at a time, however long its row groups are


class RowGroup:
    """Rows of one row group, a few decoded at a time; fast if read in their order.

    Args:
        store: directory of the file.
        name: name of the file.
        row: any row of the file that is in the row group.

    Raises:
        InvalidImageError: if the file cannot be read or has no such row.
    """

    def __init__(self, store: Store, name: str, row: int):
        self.store, self.name = store, name
        self._refusal = ""
        try:
            retry(lambda: self._open(row), self._what)
        except DAMAGE as error:
            reason = f"damaged or no Parquet file ({one_line(error)}); copy it again"
            raise InvalidImageError(reason) from None

    def holds(self, name: str, row: int) -> bool:
        """Return whether the row is in the group and not before those that are decoded."""
        return name == self.name and self._at <= row < self._end

    def image(self, row: int) -> np.ndarray:
        """Return the pixels of a row, uint8 [H, W].

        Raises:
            InvalidImageError: if they are damaged or no grey image.
        """
        width, height = self._size(row)
        try:
            if not self._refusal:
                retry(lambda: self._advance(row), self._what)
        except (*DAMAGE, StopIteration) as error:
            damage = one_line(error) or "it ends too early"
            self._refusal = f"damaged row group ({damage}); copy the file again"
        if self._refusal:
            raise InvalidImageError(self._refusal)
        values = {name: column[row - self._at] for name, column in self._batch.items()}
        return _decode(values, width, height)

    @property
    def _what(self) -> str:
        return f"{self.store.url}/{self.name} cannot be read"

    def _open(self, row: int) -> None:
        """Read the sizes of the images of the row's group; no image is decoded yet."""
        file = self.store.filesystem.open_input_file(self.store.path(self.name))
        # Arrow's pre-buffering would hold the whole row group, which others write at any size
        parquet = pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        metadata = parquet.metadata
        if row >= metadata.num_rows:
            raise InvalidImageError(f"the file has only {metadata.num_rows} rows now; run again")
        rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        ends = np.cumsum(rows)
        group = int(np.searchsorted(ends, row, side="right"))
        self._start, self._end = int(ends[group]) - rows[group], int(ends[group])
        self._at, self._batch = self._start, {}
        sizes = parquet.read_row_group(group, [*_SIZES], use_threads=False)
        if len(sizes) != rows[group]:
            raise ValueError(f"{len(sizes)} of {rows[group]} rows are there")
        self._sizes = [sizes[name].combine_chunks() for name in _SIZES]
        allowed = _OVERHEAD * _claimed_bytes(self._sizes) + _FREE_BYTES
        held = column_bytes(metadata.row_group(group))["image"]
        if held > allowed:
            self._refusal = (
                f"{held} bytes of images in a row group of {rows[group]} rows, where channels, "
                f"height and width leave room for {allowed}; write the file again"
            )
        columns = [name for name in ("image", "checksum") if name in parquet.schema_arrow.names]
        # without threads, which take longer to start on so few rows than decoding them takes
        self._batches: Iterator[pa.RecordBatch] | None = parquet.iter_batches(
            min(_BATCH, max(1, _BATCH_BYTES // max(1, held))),
            row_groups=[group],
            columns=columns,
            use_threads=False,
        )

    def _size(self, row: int) -> tuple[int, int]:
        """Return width and height of a row's image, which must be grey and of our size."""
        channels, height, width = (size[row - self._start].as_py() for size in self._sizes)
        if channels is None or height is None or width is None:
            raise InvalidImageError("no value in channels, height or width; write the row again")
        if channels != 1:
            raise InvalidImageError(f"{channels} channels; grey images of one channel are read")
        check_size(width, height)
        return width, height

    def _advance(self, row: int) -> None:
        """Decode up to the row; after an error, as of a store that is away, from the start."""
        if self._batches is None:
            self._open(row)
        batches, self._batches = self._batches, None
        while row >= (end := self._at + len(self._batch.get("image", ()))):
            batch = next(batches)
            self._at, self._batch = end, dict(zip(batch.schema.names, batch, strict=True))
        self._batches = batches


def _claimed_bytes(sizes: Iterable[pa.Array]) -> int:
    """Return the bytes of images of these sizes, without those of sizes that are refused."""
    channels, height, width = (
        np.asarray(size.cast(pa.int64(), safe=False).fill_null(0)) for size in sizes
    )
    sides = np.stack([height, width])
    is_image = (channels >= 1) & (channels <= 4) & ((sides >= 1) & (sides <= MAX_SIDE)).all(axis=0)
    return int(np.sum((channels * height * width)[is_image]))


def _decode(values: dict[str, pa.Scalar], width: int, height: int) -> np.ndarray:
    """Return the pixels of a row; InvalidImageError if they are damaged."""
    data = values["image"].as_buffer()
    if data is None:
        raise InvalidImageError("no value in image; write the row again")
    if len(data) != height * width:
        raise InvalidImageError(
            f"{len(data)} bytes for {width} x {height} pixels of one byte; write the row again"
        )
    checksum = values["checksum"].as_py() if "checksum" in values else None
    if checksum and image_checksum(data) != checksum:
        raise InvalidImageError(
            f"its bytes differ from its checksum {checksum}; copy the file again"
        )
    return np.frombuffer(data, np.uint8).reshape(height, width).copy()  # not the whole batch


def column_bytes(group: pq.RowGroupMetaData) -> dict[str, int]:
    """Return uncompressed bytes of each column, where a value that is repeated counts once."""
    columns = (group.column(index) for index in range(group.num_columns))
    return {column.path_in_schema: column.total_uncompressed_size for column in columns}


def one_line(error: Exception) -> str:
    """Return its message without line breaks."""
    return " ".join(str(error).split())
