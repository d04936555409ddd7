"""Parquet files that are small and claim, or unpack to, what would fill the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest

from gemix.core.errors import DataError
from gemix.data.scan import InvalidImageError
from gemix.data.sources.parquet.source import ParquetSource
from tests.data.arrow_memory import counted_by_a_pool
from tests.data.parquet_files import ROWS, columns, write

BOMB = 8 * 2**20  # bytes of a value that takes a few KiB in a file, however often it is there


def repeated(value: bytes | str, count: int = ROWS) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), [value])


@pytest.fixture
def make_packed(tmp_path) -> Callable[..., ParquetSource]:
    """The same in one row group, packed, where what is `repeated` stands once."""

    def make(count: int = ROWS, **changes) -> ParquetSource:
        path, values = tmp_path / "set" / "one.parquet", columns(count, **changes)
        options = {"compression": "zstd", "dictionary_pagesize_limit": 2**30}
        write(path, values, store_schema=False, **options)
        assert path.stat().st_size < 2**17
        return ParquetSource(str(tmp_path / "set"))

    return make


@pytest.fixture
def arrow_peak() -> Iterator[Callable[[], int]]:
    """The most bytes that Arrow has held at once since the test began."""
    with counted_by_a_pool() as pool:
        yield pool.max_memory


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, r"8388\d+ bytes of images in a row group of 150 rows, where .*; write the file"),
        ({"height": [2**30] * ROWS}, "24 x 1073741824 pixels; sides from 16 to 8192"),
    ],
)
def test_images_larger_than_their_sizes_say_are_not_decoded(
    make_packed, arrow_peak, changes, reason
):
    source = make_packed(image=repeated(bytes(BOMB)), checksum=None, **changes)
    items, before = source.list().items, arrow_peak()
    for item in items:
        with pytest.raises(InvalidImageError, match=reason):
            source.load(item)
    assert arrow_peak() == before < 2 * BOMB  # what it took to write the file


def test_large_values_among_many_rows_are_decoded_few_at_a_time(make_packed, arrow_peak):
    count = 600
    sides = {"height": [128] * count, "width": [128] * count}
    source = make_packed(count, image=repeated(bytes(BOMB), count), checksum=None, **sides)
    items = source.list().items
    for row in (0, 100):
        with pytest.raises(InvalidImageError, match=f"{BOMB} bytes for 128 x 128 pixels"):
            source.load(items[row])
    assert arrow_peak() < 12 * BOMB  # two batches of four values and what they are unpacked from


@pytest.mark.parametrize(
    ("count", "size", "reason"),
    [
        (ROWS, 2**19, "a text of 524288 bytes in the column patient, over 1024"),
        (ROWS, BOMB, r"8388\d+ bytes of text in a row group of the column patient"),
        (40_000, 1, r"40000 rows in \d+ bytes"),
    ],
)
def test_small_columns_that_are_not_small_are_refused(make_packed, arrow_peak, count, size, reason):
    same = {"image": repeated(bytes(480), count), "patient": repeated("p" * size, count)}
    source = make_packed(count, checksum=None, split=None, **same)
    before = arrow_peak()
    with pytest.raises(DataError, match=rf"1 of 1 .*one\.parquet: {reason}.*write them again"):
        source.list()
    assert arrow_peak() <= max(before, 2 * BOMB)
