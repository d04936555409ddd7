"""The contract of a source of scans, as a test class to subclass (pytest collects it)::

class TestMySource(SourceContract):
    def open(self, folder):
        write_small_archive(folder)
        return MySource(str(folder))
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemix.core.errors import DataError
from gemix.data.scan import HIGHEST_HU, LOWEST_HU, InvalidImageError
from gemix.data.shards.manifest import SPLITS
from gemix.data.sources import ScanRef, Source
from gemix.data.sources.scan_refs import SCAN_REF_SCHEMA
from gemix.io.storage import Store


class SourceContract:
    """Contract of a source; subclass it and override :meth:`open`.

    Attributes:
        has_files: whether the source reads files.
        whole_files: number of files that listing the archive may read whole, beside headers.
        has_groups: whether the archive's patients (or volumes) are known.
    """

    has_files: bool = True
    whole_files: int = 0
    has_groups: bool = True

    def open(self, folder: Path) -> Source:
        """Write a small archive of two or more classes below `folder` and open it.

        It is called once in each test.
        """
        raise NotImplementedError

    def file_of(self, source: Source, item: ScanRef) -> Path:
        """Return the file that `load` reads for an item."""
        return Path(source.store.url) / (item.location or item.key)

    def test_items_are_labelled_and_distinct(self, tmp_path: Path) -> None:
        """Keys are unique, every class has items, and notes say what was found."""
        listing = self.open(tmp_path).list()
        assert len({item.key for item in listing.items}) == len(listing.items) > 0
        assert {item.class_index for item in listing.items} == set(range(len(listing.classes)))
        assert len(set(listing.classes)) == len(listing.classes) >= 2
        assert listing.items.table.schema.equals(SCAN_REF_SCHEMA)
        assert listing.listed >= len(listing.items)
        assert listing.notes and all(note.strip() == note != "" for note in listing.notes)

    def test_classes_come_one_after_the_other(self, tmp_path: Path) -> None:
        """Items are sorted by class."""
        indices = [item.class_index for item in self.open(tmp_path).list().items]
        assert indices == sorted(indices)

    def test_groups_and_splits_are_names(self, tmp_path: Path) -> None:
        """Each item has a group where patients are known, and a known split or none."""
        listing = self.open(tmp_path).list()
        for item in listing.items:
            assert (item.group is not None) == self.has_groups
            assert item.group is None or item.group.strip()
            assert item.split in (None, *SPLITS)
        assert listing.group_kind

    def test_listing_is_deterministic(self, tmp_path: Path) -> None:
        """Listing again, and in another process, gives the same."""
        source = self.open(tmp_path)
        listing = source.list()
        assert source.list() == listing
        assert pickle.loads(pickle.dumps(source)).list() == listing

    def test_listing_is_the_same_with_any_map_function(self, tmp_path: Path) -> None:
        """Functions and inputs may be pickled and run in any order."""

        def shuffled(
            function: Callable[[Any], Any], inputs: Sequence[Any], unit: str
        ) -> Iterator[Any]:
            sent = [pickle.loads(pickle.dumps((function, value))) for value in inputs]
            results = {i: pickle.dumps(f(v)) for i, (f, v) in reversed([*enumerate(sent)])}
            yield from (pickle.loads(results[i]) for i in range(len(inputs)))

        source = self.open(tmp_path)
        assert source.list(shuffled) == source.list()

    def test_listing_reads_no_image(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Listing loads no scan, and reads headers but for `whole_files` files."""
        source = self.open(tmp_path)
        read: list[str] = []
        read_bytes = Store.read_bytes

        def spy(store: Store, name: str, *args: Any) -> bytes:
            read.append(f"{store.url}/{name}")
            return read_bytes(store, name, *args)

        monkeypatch.setattr(Store, "read_bytes", spy)
        monkeypatch.setattr(type(source), "load", None)
        items = source.list().items
        monkeypatch.undo()
        if self.has_files:
            files = {str(self.file_of(source, item)) for item in items}
            assert sum(name in files for name in read) <= self.whole_files

    def test_items_change_with_their_files(self, tmp_path: Path) -> None:
        """Stamps differ when files were written again, so that no stale result is reused."""
        source = self.open(tmp_path)
        items = source.list().items
        before = items.table["stamp"].to_pylist()
        if not self.has_files:
            assert set(before) == {None}
            return
        for item in items:
            os.utime(self.file_of(source, item), (1, 1))
        after = source.list().items.table["stamp"].to_pylist()
        assert all(before + after)
        assert not set(before) & set(after)

    def test_every_item_loads(self, tmp_path: Path) -> None:
        """Scans are float32 HU within the range of scanners or uint8 grey, and keep the box."""
        source = self.open(tmp_path)
        for item in source.list().items:
            scan = source.load(item)
            assert scan.pixels.ndim == 2 and scan.pixels.size
            assert scan.box == item.box
            if scan.is_hounsfield:
                assert scan.pixels.dtype == np.float32
                assert LOWEST_HU <= scan.pixels.min() < -900
                assert scan.pixels.max() <= HIGHEST_HU
            else:
                assert scan.pixels.dtype == np.uint8

    def test_scans_do_not_depend_on_the_order_of_loading(self, tmp_path: Path) -> None:
        """A scan is the same when loaded again, in another order or from a copy of the source."""
        source = self.open(tmp_path)
        items = [*source.list().items]
        scans = {item.key: source.load(item).pixels.copy() for item in items}
        copy = pickle.loads(pickle.dumps(source))
        for item in reversed(items):
            np.testing.assert_array_equal(source.load(item).pixels, scans[item.key])
        np.testing.assert_array_equal(copy.load(items[-1]).pixels, scans[items[-1].key])

    @pytest.mark.parametrize("damage", ["gone", "empty", "garbage"])
    def test_damaged_files_are_told(self, tmp_path: Path, damage: str) -> None:
        """A file that cannot be used raises an error with a reason, before or after listing.

        It is InvalidImageError, or DataError where one file holds the whole archive.
        """
        source = self.open(tmp_path)
        item = source.list().items[0]
        if not self.has_files:
            return
        file = self.file_of(source, item)
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes(b"" if damage == "empty" else b"no image " * 50)
        fresh = pickle.loads(pickle.dumps(source))
        with pytest.raises((InvalidImageError, DataError)) as caught:
            fresh.load(item)
        assert str(caught.value).strip()
