"""CSV files of the class of each patient or series.

Errors name lines and columns but quote no cell: a cell may name a patient, even in the wrong column
of a shifted line.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterator, Mapping

from gemix.core.errors import DataError
from gemix.data.shards.manifest import SPLITS
from gemix.data.sources.folder_names import normalize_class
from gemix.io.storage import Store

KEYS = ("patient", "series")

_WHERE = "data.labels"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelFile:
    """Contents of a label file.

    Attributes:
        key: the column of the labelled keys, one of `KEYS`.
        labels: class and split (train, val, test or None) of each PatientID or SeriesInstanceUID.
        classes: two or more names, sorted.
    """

    key: str
    labels: Mapping[str, tuple[str, str | None]]
    classes: tuple[str, ...]


def read_labels(store: Store, name: str) -> LabelFile:
    """Read a CSV file in UTF-8 with the columns patient or series, class, and maybe split.

    Other columns, empty lines and spaces around values are ignored. Class names are in NFC.

    Raises:
        DataError: for a file that is missing, empty or not UTF-8, a missing column, an empty
            cell, an unknown split, a key with two classes or splits, class names that differ in
            case alone, or fewer than two classes.
    """
    rows = _rows(store, name)
    _, first_line = next(rows, (1, []))
    columns = [column.lower() for column in first_line]
    key = _key_column(columns)
    labels: dict[str, tuple[str, str | None]] = {}
    lines: dict[str, int] = {}
    spellings: dict[str, tuple[str, int]] = {}
    for line, cells in rows:
        if len(cells) != len(columns):
            raise DataError(
                f"{_WHERE}, line {line}: {len(cells)} cells under {len(columns)} columns; put "
                "quotes around a cell with a comma"
            )
        row = dict(zip(columns, cells, strict=True))
        row["class"] = normalize_class(row["class"])
        for column in (key, "class"):
            if not row[column]:
                raise DataError(f"{_WHERE}, line {line}, column {column}: empty; fill it in")
        split = row.get("split", "").lower() or None
        if split not in (None, *SPLITS):
            raise DataError(
                f"{_WHERE}, line {line}, column split: wanted train, val, test or nothing"
            )
        label = row["class"], split
        first = lines.setdefault(row[key], line)
        if labels.setdefault(row[key], label) != label:
            raise DataError(
                f"{_WHERE}, lines {first} and {line}: one {key} with two classes or splits; "
                "remove one of the lines"
            )
        spelling, first = spellings.setdefault(label[0].casefold(), (label[0], line))
        if spelling != label[0]:
            raise DataError(
                f"{_WHERE}, lines {first} and {line}, column class: names that differ in case "
                "alone; spell them alike"
            )
    classes = tuple(sorted({label for label, _ in labels.values()}))
    if len(classes) < 2:
        raise DataError(
            f"{_WHERE}: {len(labels)} labelled {key} keys of {len(classes)} classes; two or more "
            "classes are needed"
        )
    return LabelFile(key=key, labels=labels, classes=classes)


def _rows(store: Store, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and cells of the lines that are not empty."""
    try:
        text = store.read_bytes(name).decode("utf-8-sig")
    except DataError:
        raise DataError(
            f"{_WHERE}: no such file, or it cannot be read; correct {_WHERE}, which is relative to "
            "data.path, absolute or an s3:// URL"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{_WHERE}, line {line}: not UTF-8 text; save it as CSV UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error:
        raise DataError(
            f"{_WHERE}, line {reader.line_num}: no CSV (an open quote?); correct the line"
        ) from None


def _key_column(columns: list[str]) -> str:
    """Return the one of `KEYS` that is among the columns."""
    wanted = "wanted in the first line, with commas: patient or series, class, and maybe split"
    if not columns:
        raise DataError(f"{_WHERE}: empty; {wanted}")
    if "class" not in columns:
        raise DataError(f"{_WHERE}: no column class; {wanted}")
    if max(columns.count(name) for name in (*KEYS, "class", "split")) > 1:
        raise DataError(f"{_WHERE}: two columns of the same name; {wanted}")
    found = [key for key in KEYS if key in columns]
    if len(found) != 1:
        which = "both columns patient and series" if found else "no column patient or series"
        raise DataError(f"{_WHERE}: {which}; {wanted}")
    return found[0]
