"""Images in Parquet files of our own schema, prepared before or written by others."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gemix.core.errors import DataError
from gemix.data.map_fn import MapFn, serial_map
from gemix.data.scan import InvalidImageError, Scan
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.sources.base import Listing
from gemix.data.sources.class_folders import check_spelling
from gemix.data.sources.files import MISNAMED, Files, list_files, natural_key
from gemix.data.sources.folder_names import normalize_class
from gemix.data.sources.parquet.rows import RowGroup
from gemix.data.sources.parquet.survey import survey
from gemix.data.sources.scan_refs import SCAN_REF_SCHEMA, ScanRef, ScanRefs
from gemix.io.storage import Store

_ENDING = ".parquet"
_KEY = re.compile(r"(.+)#row-(\d{6,})", re.DOTALL)
_GENERATED = r"^(run-[0-9a-f]{16}|.*/block-\d+)$"  # groups of prepare where patients are not known


class ParquetSource:
    """Rows of the Parquet files below `path`, with :data:`gemix.data.shards.schema.SCHEMA`.

    Needed are image (uint8 bytes [1, H, W]), channels, height, width and the class:
    ``class_index`` where a ``manifest.json`` at the top names the classes, else the text column
    ``class``. ``patient``, ``split`` and ``checksum`` are used where they are there. Of a set with
    a manifest the files that it names are read. Images are taken to be windowed and cropped.
    Local paths and ``s3://`` URLs.

    Args:
        path: the folder with the files.
    """

    def __init__(self, path: str):
        self.store = Store(path)
        # rows are asked for in order: a row group is opened once for those in it
        self._last: RowGroup | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": None}

    def list(self, map_fn: MapFn = serial_map) -> Listing:
        """Read small columns alone; see :class:`gemix.data.sources.base.Source`."""
        files = list_files(self.store)
        names, notes = self._names(files), files.notes()
        manifest = Manifest.load(self.store) if self.store.exists(MANIFEST) else None
        if manifest:
            names, more = self._of_set(names, manifest)
            notes += more
        tables = self._survey(names, "class_index" if manifest else "class", map_fn)
        rows = pa.concat_tables(
            table.append_column("stamp", pa.repeat(files.stamps[name], len(table)))
            for name, table in zip(names, tables, strict=True)
        )
        classes, codes = _from_manifest(rows, manifest) if manifest else _from_text(rows)
        kept = np.unique(codes[codes >= 0])
        if len(kept) < 2:
            found = f"only one class, {classes[kept[0]]!r}" if len(kept) else "no labelled image"
            raise DataError(
                f"data.path {self.store.url}: {found}; Parquet files with images of two or more "
                "classes are needed"
            )
        missing = [name for index, name in enumerate(classes) if index not in kept]
        if missing:
            notes.append(f"no image of class {', '.join(missing)} was found; it is left out")
        unlabelled = int(np.sum(codes < 0))
        if unlabelled:
            notes.append(f"left out {unlabelled} rows without a class")
        order = np.argsort(codes, kind="stable")[unlabelled:]
        indices = np.searchsorted(kept, codes[order]).astype(np.int32)
        taken = ("key", "group", "split", "box", "stamp")
        columns = {name: rows[name].take(order) for name in taken}
        columns |= {"class_index": indices, "location": pa.nulls(len(order), pa.string())}
        return Listing(
            classes=tuple(classes[index] for index in kept),
            items=ScanRefs(
                pa.table(
                    {name: columns[name] for name in SCAN_REF_SCHEMA.names}, schema=SCAN_REF_SCHEMA
                )
            ),
            listed=max(len(rows), manifest.images() if manifest else 0),
            notes=(f"found {len(order)} images in {len(names)} Parquet files", *notes),
            group_kind=_groups_are(columns["group"], manifest),
        )

    def load(self, item: ScanRef) -> Scan:
        """See :class:`gemix.data.sources.base.Source`; the box is the whole image."""
        match = _KEY.fullmatch(item.key)
        if not match:
            raise InvalidImageError("no key of a Parquet row; run gemix prepare again")
        name, row = match[1], int(match[2])
        if self._last is None or not self._last.holds(name, row):
            self._last = None  # frees its rows before others are decoded
            self._last = RowGroup(self.store, name, row)
        return Scan(pixels=self._last.image(row), is_hounsfield=False, box=item.box)

    def _names(self, files: Files) -> list[str]:
        """Return the Parquet files in natural order."""
        names = [name for name in files.names if name.lower().endswith(_ENDING)]
        for name in files.misnamed:
            if name.lower().endswith(_ENDING):
                raise DataError(f"data.path {self.store.url}: {name}: {MISNAMED}")
        if not names:
            raise DataError(
                f"data.path {self.store.url}: no {_ENDING} file among {len(files.names)} files; "
                "correct data.path"
            )
        return names

    def _of_set(self, names: Sequence[str], manifest: Manifest) -> tuple[list[str], list[str]]:
        """Return the files that the manifest names, and notes on the others and the set."""
        shards = {shard.name for shard in manifest.shards}
        kept = [name for name in names if name in shards]
        notes = []
        if len(kept) < len(names):
            notes.append(f"left out {len(names) - len(kept)} files that {MANIFEST} does not name")
        if len(kept) < len(shards):
            notes.append(f"{len(shards) - len(kept)} files that {MANIFEST} names are not there")
        if manifest.kind != "real":
            notes.append(f"the images are {manifest.kind}, as {MANIFEST} says")
        if not kept:
            raise DataError(
                f"{self.store.url}/{MANIFEST}: none of the {len(shards)} files that it names is "
                "there; copy them beside it"
            )
        return kept, notes

    def _survey(self, names: Sequence[str], label: str, map_fn: MapFn) -> list[pa.Table]:
        """Read the small columns of each file."""
        surveyed = list(map_fn(functools.partial(survey, self.store, label), names, "files"))
        bad = [
            f"{name}: {one}"
            for name, one in zip(names, surveyed, strict=True)
            if isinstance(one, str)
        ]
        if bad:
            # a file holds thousands of images: too many to go on without them
            raise DataError(
                f"data.path {self.store.url}: {len(bad)} of {len(names)} Parquet files cannot be "
                f"used ({bad[0]}); copy or write them again, or move them away. The class is "
                f"text in a column class, or class_index where a {MANIFEST} names the classes"
            )
        return surveyed


def _groups_are(groups: pa.ChunkedArray, manifest: Manifest | None) -> str:
    """Return what the groups stand for: patients, unless an earlier prepare did not know them."""
    if pc.any(pc.match_substring_regex(groups, _GENERATED)).as_py():
        return "groups of an earlier prepare"
    known = manifest.origin.get("grouping") if manifest else None
    return "volumes" if known == "volumes" else "patients"


def _from_manifest(rows: pa.Table, manifest: Manifest) -> tuple[Sequence[str], np.ndarray]:
    """Return class names and each row's index among them, -1 for none."""
    codes = np.asarray(rows["class"].fill_null(-1))
    wrong = np.flatnonzero((codes >= len(manifest.classes)) | (codes < -1))
    if len(wrong):
        raise DataError(
            f"{rows['key'][int(wrong[0])]}: class_index {codes[wrong[0]]}, but {MANIFEST} names "
            f"{len(manifest.classes)} classes; write the row again"
        )
    return manifest.classes, codes


def _from_text(rows: pa.Table) -> tuple[Sequence[str], np.ndarray]:
    """Return the same from the names in the rows, in natural order."""
    texts = rows["class"].combine_chunks().dictionary_encode()
    found = [normalize_class(name) for name in texts.dictionary.to_pylist()]
    classes = sorted({name for name in found if name.strip()}, key=natural_key)
    check_spelling(classes, "column class", "spell them alike")
    ranks = np.array([classes.index(name) if name in classes else -1 for name in found] + [-1])
    return classes, ranks[np.asarray(texts.indices.fill_null(len(found)))]
