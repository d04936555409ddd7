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
from gemix.data.scan import InvalidImageError, Quarantined, Scan
from gemix.data.sources.base import Listing
from gemix.data.sources.dicom.header import Found, read_headers
from gemix.data.sources.dicom.pixels import read_hounsfield
from gemix.data.sources.dicom.slices import SliceTable, foot_to_head, without_copies
from gemix.data.sources.files import MISNAMED, Files, list_files
from gemix.data.sources.label_file import LabelFile, read_labels
from gemix.data.sources.redact import redact_path
from gemix.data.sources.scan_refs import ScanRef, ScanRefs
from gemix.io.storage import Store

SALT = "GEMIX_PATIENT_SALT"

_SHORTEST_SALT = 16
_CHUNK = 256  # files whose headers are read at a time


class DicomSource:
    """Axial CT slices below `path`, whatever their files are called.

    `labels` is a CSV file as :func:`gemix.data.sources.label_file.read_labels` reads it, relative
    to `path`, absolute or an ``s3://`` URL. Keys and groups are hashes under the secret in the
    environment variable `SALT`: the same secret gives the same ones. Local paths and ``s3://``
    URLs.
    """

    def __init__(self, path: str, labels: str):
        self.store = Store(path)
        is_whole = "://" in labels or os.path.isabs(labels)
        self.labels = labels if is_whole else f"{self.store.url}/{labels}"

    def list(self, map_fn: MapFn = serial_map) -> Listing:
        """Reads headers alone; see :class:`gemix.data.sources.base.Source`."""
        salt = _read_salt()
        labels = read_labels(*Store.of_file(self.labels))
        files = list_files(self.store, is_secret=True)
        names = [n for n in files.names if f"{self.store.url}/{n}" != self.labels]
        found = SliceTable.of(self._headers(names, labels.key, map_fn))
        labelled = found.labelled(labels)
        slices = without_copies(labelled)
        damaged = [(names[one], reason) for one, reason in found.damaged]
        damaged += [(name, MISNAMED) for name in files.misnamed]
        notes = [*_notes(found, labelled, slices, labels), *_on_files(files, damaged)]
        kept = sorted({labels.labels[found.keys[run]][0] for run in np.unique(slices["run"])})
        if len(kept) < 2:
            what = f"slices of class {kept[0]!r} alone" if kept else "no labelled axial CT slice"
            raise DataError(
                f"data.path: {what} ({'; '.join(notes)}); add DICOM files of two or more classes, "
                f"or mend the column {labels.key} of data.labels, which must hold "
                f"{'PatientID' if labels.key == 'patient' else 'SeriesInstanceUID'} as the files do"
            )
        missing = [name for name in labels.classes if name not in kept]
        if missing:
            notes.append(f"no slice of class {', '.join(missing)} was found; it is left out")
        return Listing(
            classes=tuple(kept),
            items=ScanRefs.of(_items(found, slices, labels, kept, salt, names, files.stamps)),
            listed=len(slices) + len(damaged),
            notes=tuple(notes),
            unusable=tuple(
                Quarantined(source=f"file-{_hash(salt, 'file', name)[:12]}", reason=reason)
                for name, reason in damaged
            ),
        )

    def load(self, item: ScanRef) -> Scan:
        """See :class:`gemix.data.sources.base.Source`; float32 HU from -1024 to 3071."""
        name = item.location or ""
        try:
            with redact_path(self.store, name):
                data = self.store.read_bytes(name)
        except DataError:
            raise InvalidImageError(
                "the file is gone or cannot be read; run gemix prepare again"
            ) from None
        return Scan(pixels=read_hounsfield(data), is_hounsfield=True)

    def _headers(self, names: Sequence[str], key: str, map_fn: MapFn) -> Iterator[Found]:
        """What each file is, in the order of `names`."""
        chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
        read = functools.partial(read_headers, self.store, key)
        return itertools.chain.from_iterable(map_fn(read, chunks, "headers"))


def _read_salt() -> bytes:
    salt = os.environ.get(SALT, "")
    if len(salt) < _SHORTEST_SALT:
        state = f"shorter than {_SHORTEST_SALT} characters" if salt else "not set"
        raise DataError(
            f"{SALT}: {state}; patients are named by hashes under this secret: "
            f"export {SALT}=$(openssl rand -hex 16), keep it secret, and use it again for the "
            "same keys"
        )
    return salt.encode()


def _on_files(files: Files, damaged: Sequence[tuple[str, str]]) -> list[str]:
    """Counts of files that cannot be used, and of folders that were not looked into."""
    reasons = Counter(reason.partition(";")[0] for _, reason in damaged)
    return [
        *(f"set aside {count} files: {reason}" for reason, count in sorted(reasons.items())),
        *files.notes(),
    ]


def _notes(
    found: SliceTable, labelled: np.ndarray, slices: np.ndarray, labels: LabelFile
) -> list[str]:
    """Counts of what was found and left out; `slices` are those labelled, without copies."""
    runs = np.unique(found.slices["run"])
    strangers = {found.keys[run] for run in runs} - labels.labels.keys()
    absent = labels.labels.keys() - {found.keys[run] for run in runs}
    unnamed, burned = np.sum(slices["is_nameless"]), np.sum(slices["is_burned"])
    notes = [f"found {len(slices)} axial CT slices, labelled by {labels.key}"]
    notes += [f"left out {count} {what}" for what, count in sorted(found.left_out.items())]
    if len(slices) < len(labelled):
        copies = len(labelled) - len(slices)
        notes.append(f"left out {copies} copies of a slice (the same SOPInstanceUID)")
    if strangers:
        notes.append(
            f"left out {len(found.slices) - len(labelled)} slices whose {labels.key} "
            f"({len(strangers)} of them) has no label"
        )
    if absent:
        notes.append(f"{len(absent)} keys in the column {labels.key} of data.labels have no slice")
    if unnamed:
        notes.append(f"{unnamed} slices have no PatientID: their study stands for the patient")
    if burned:
        notes.append(
            f"{burned} slices may carry burned-in text (BurnedInAnnotation YES, or a secondary "
            "image that does not say NO): look at the contact sheet, which shows a few slices"
        )
    return notes


def _items(
    found: SliceTable,
    slices: np.ndarray,
    labels: LabelFile,
    classes: Sequence[str],
    salt: bytes,
    names: Sequence[str],
    stamps: Mapping[str, str],
) -> Iterator[ScanRef]:
    """Yield scans by class, patient, series and height; hashes order the first two."""
    runs = []
    for run in np.unique(slices["run"]):
        label, split = labels.labels[found.keys[run]]
        patient = _hash(salt, "patient", found.patients[run])[:16]
        series = _hash(salt, "series", found.patients[run], found.series[run])[:12]
        runs.append((classes.index(label), patient, series, split or "", run))
    by_run = slices[foot_to_head(slices)]
    starts = np.searchsorted(by_run["run"], np.arange(len(found.keys) + 1))
    for index, patient, series, split, run in sorted(runs):
        for number, one in enumerate(by_run["file"][starts[run] : starts[run + 1]], start=1):
            yield ScanRef(
                key=f"series-{series}/slice-{number:04d}",
                class_index=index,
                group=f"patient-{patient}",
                split=split or None,
                location=names[one],
                stamp=stamps[names[one]],
            )


def _hash(salt: bytes, *parts: str) -> str:
    return hmac.new(salt, "\0".join(parts).encode(), hashlib.sha256).hexdigest()
