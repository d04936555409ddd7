"""CT slices in DICOM files, labelled by patient or series in a CSV file, without their names.

A DICOM header names the patient many times over, and so may the file's path. Only pixels,
geometry and the label leave this module: keys and groups are keyed hashes, notes count, and no
reason or error quotes a header value or a path.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from gemix.core.errors import DataError
from gemix.data.map_fn import MapFn, serial_map
from gemix.data.preprocessing.hounsfield import NO_AIR
from gemix.data.scan import InvalidImageError, Quarantined, Scan
from gemix.data.sources.base import Listing
from gemix.data.sources.dicom.header import HeaderResult, read_headers
from gemix.data.sources.dicom.notes import (
    check_classes,
    check_patients,
    count_reasons,
    describe_slices,
)
from gemix.data.sources.dicom.pixel_checks import (
    DAMAGED_COPY,
    find_airless_series,
    find_repeated_instances,
)
from gemix.data.sources.dicom.pixels import read_hounsfield
from gemix.data.sources.dicom.slices import SliceTable, order_foot_to_head
from gemix.data.sources.files import MISNAMED, list_files
from gemix.data.sources.label_file import LabelFile, read_labels
from gemix.data.sources.redact import redact_path
from gemix.data.sources.scan_refs import ScanRef, ScanRefs
from gemix.io.storage import Store

SALT = "GEMIX_PATIENT_SALT"

_MIN_SALT = 16  # characters
_CHUNK = 256  # files whose headers are read at a time


class DicomSource:
    """Axial CT slices below a folder, whatever their files are called.

    Keys and groups are hashes under the secret in the environment variable `SALT`: the same secret
    gives the same ones.

    Args:
        path: a local folder or an ``s3://`` URL.
        labels: a CSV file as :func:`gemix.data.sources.label_file.read_labels` reads it, relative
            to `path`, absolute or an ``s3://`` URL.
    """

    def __init__(self, path: str, labels: str):
        self.store = Store(path)
        is_absolute = "://" in labels or os.path.isabs(labels)
        self.labels = labels if is_absolute else f"{self.store.url}/{labels}"

    def list(self, map_fn: MapFn = serial_map) -> Listing:
        """List the slices by their headers; see :class:`gemix.data.sources.base.Source`.

        Pixels are read of one slice of each series, to see that it holds Hounsfield units, and of
        files that share a SOPInstanceUID, to see which are copies.
        """
        salt = _read_salt()
        labels = read_labels(*Store.of_file(self.labels))
        files = list_files(self.store, is_secret=True)
        names = [n for n in files.names if f"{self.store.url}/{n}" != self.labels]
        table = SliceTable.from_headers(self._headers(names, labels.key, map_fn))
        labelled = table.labelled(labels)
        check_patients(table, labelled, labels)
        is_copy, is_damaged = find_repeated_instances(labelled, names, self.store, map_fn)
        slices = labelled[~is_copy & ~is_damaged]
        airless = find_airless_series(slices, names, self.store, map_fn)
        is_airless = np.isin(slices["series"], airless)
        unusable = [(names[file], reason) for file, reason in table.unusable]
        unusable += [(names[file], DAMAGED_COPY) for file in labelled["file"][is_damaged]]
        unusable += [(names[file], NO_AIR) for file in slices["file"][is_airless]]
        unusable += [(name, MISNAMED) for name in files.misnamed]
        lost = np.concatenate([labelled["series"][is_damaged], slices["series"][is_airless]])
        slices = slices[~is_airless]
        reasons = [reason for _, reason in unusable]
        notes = [*describe_slices(table, labelled, slices, int(is_copy.sum()), labels)]
        classes = sorted({labels.labels[table.keys[s]][0] for s in np.unique(slices["series"])})
        check_classes(classes, labels, notes, reasons)
        # the quarantine list has the remedies
        notes += [*count_reasons([one.partition(";")[0] for one in reasons]), *files.notes()]
        missing = [name for name in labels.classes if name not in classes]
        if missing:
            notes.append(f"no slice of class {', '.join(missing)} was found; it is left out")
        return Listing(
            classes=tuple(classes),
            items=ScanRefs.of(_items(table, slices, labels, classes, salt, names, files.stamps)),
            listed=len(slices) + len(unusable),
            notes=tuple(notes),
            unusable=tuple(
                Quarantined(source=f"file-{_hash(salt, 'file', name)[:12]}", reason=reason)
                for name, reason in unusable
            ),
            unusable_of_class=Counter(labels.labels[table.keys[series]][0] for series in lost),
        )

    def load(self, item: ScanRef) -> Scan:
        """Read a slice as float32 HU from -1024 to 3071.

        See :class:`gemix.data.sources.base.Source`.
        """
        name = item.location or ""
        try:
            with redact_path(self.store, name):
                data = self.store.read_bytes(name)
        except DataError:
            raise InvalidImageError(
                "the file is gone or cannot be read; run gemix prepare again"
            ) from None
        return Scan(pixels=read_hounsfield(data), is_hounsfield=True)

    def _headers(self, names: Sequence[str], key: str, map_fn: MapFn) -> Iterator[HeaderResult]:
        """Classify each file, in the order of `names`."""
        chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
        read = functools.partial(read_headers, self.store, key)
        return itertools.chain.from_iterable(map_fn(read, chunks, "headers"))


def _read_salt() -> bytes:
    salt = os.environ.get(SALT, "")
    if len(salt) < _MIN_SALT:
        state = f"shorter than {_MIN_SALT} characters" if salt else "not set"
        raise DataError(
            f"{SALT}: {state}; patients are named by hashes under this secret: "
            f"export {SALT}=$(openssl rand -hex 16), keep it secret, and use it again for the "
            "same keys"
        )
    return salt.encode()


def _items(
    table: SliceTable,
    slices: np.ndarray,
    labels: LabelFile,
    classes: Sequence[str],
    salt: bytes,
    names: Sequence[str],
    stamps: Mapping[str, str],
) -> Iterator[ScanRef]:
    """Yield scans by class, patient, series and height; hashes order patients and series."""
    ordered_series = []
    for one in np.unique(slices["series"]):
        label, split = labels.labels[table.keys[one]]
        patient = _hash(salt, "patient", table.patients[one])[:16]
        series = _hash(salt, "series", table.patients[one], table.series[one])[:12]
        ordered_series.append((classes.index(label), patient, series, split or "", one))
    ordered = slices[order_foot_to_head(slices)]
    starts = np.searchsorted(ordered["series"], np.arange(len(table.keys) + 1))
    for index, patient, series, split, one in sorted(ordered_series):
        for number, file in enumerate(ordered["file"][starts[one] : starts[one + 1]], start=1):
            yield ScanRef(
                key=f"series-{series}/slice-{number:04d}",
                class_index=index,
                group=f"patient-{patient}",
                split=split or None,
                location=names[file],
                stamp=stamps[names[file]],
            )


def _hash(salt: bytes, *parts: str) -> str:
    return hmac.new(salt, "\0".join(parts).encode(), hashlib.sha256).hexdigest()
