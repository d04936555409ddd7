"""CT slices in DICOM files, labelled by patient or series in a CSV file, without their names.

A DICOM header names the patient many times over, and so may the file's path. Only pixels,
geometry and the label leave this module: keys and groups are keyed hashes, notes count, and no
reason or error quotes a header value or a path.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from gemix.data.scan import BadImage, Scan
from gemix.data.sources.base import Item, Listing
from gemix.data.sources.dicom_file import SliceHeader, read_header, read_hounsfield
from gemix.data.sources.files import list_files
from gemix.data.sources.label_file import LabelFile, read_labels
from gemix.errors import DataError
from gemix.storage import Store

SALT = "GEMIX_PATIENT_SALT"

_SHORTEST_SALT = 16
_UNREADABLE = "files that could not be read"


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

    def list(self) -> Listing:
        """See :class:`gemix.data.sources.base.Source`."""
        salt = _read_salt()
        labels = read_labels(*Store.of_file(self.labels))
        left_out: Counter[str] = Counter()
        slices = list(self._slices(labels.key, left_out))
        labelled = [one for one in slices if one.key in labels.labels]
        notes = _notes(slices, labelled, labels, left_out)
        kept = sorted({labels.labels[one.key][0] for one in labelled})
        if len(kept) < 2:
            found = f"slices of class {kept[0]!r} alone" if kept else "no labelled axial CT slice"
            raise DataError(
                f"data.path: {found} ({'; '.join(notes)}); add DICOM files of two or more classes, "
                f"or mend the column {labels.key} of data.labels, which must hold "
                f"{'PatientID' if labels.key == 'patient' else 'SeriesInstanceUID'} as the files do"
            )
        missing = [name for name in labels.classes if name not in kept]
        if missing:
            notes.append(f"no slice of class {', '.join(missing)} was found; it is left out")
        return Listing(
            classes=tuple(kept),
            items=tuple(_items(labelled, labels, kept, salt)),
            listed=len(labelled) + left_out[_UNREADABLE],
            notes=tuple(notes),
        )

    def load(self, item: Item) -> Scan:
        """See :class:`gemix.data.sources.base.Source`; float32 HU from -1024 to 3071."""
        try:
            data = self.store.read_bytes(item.location or "")
        except DataError:
            raise BadImage("the file is gone or cannot be read; run gemix prepare again") from None
        return Scan(pixels=read_hounsfield(data), is_hounsfield=True)

    def _slices(self, key: str, left_out: Counter[str]) -> Iterator[SliceHeader]:
        """Axial CT slices in the order of their paths; counts what is left out."""
        seen: set[str] = set()
        for name in list_files(self.store):
            if f"{self.store.url}/{name}" == self.labels:
                continue
            try:
                data = self.store.read_bytes(name)
            except DataError:
                left_out[_UNREADABLE] += 1
                continue
            found = read_header(name, data, key)
            if isinstance(found, str):
                left_out[found] += 1
            elif found.instance in seen:
                left_out["copies of a slice (the same SOPInstanceUID)"] += 1
            else:
                seen.add(found.instance)
                yield found


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


def _notes(
    slices: list[SliceHeader],
    labelled: list[SliceHeader],
    labels: LabelFile,
    left_out: Counter[str],
) -> list[str]:
    """Counts of what was found and left out."""
    found = {one.key for one in labelled}
    unlabelled = [one.key for one in slices if one.key not in labels.labels]
    nameless = sum(not one.has_patient for one in labelled)
    burned = sum(one.is_burned for one in labelled)
    notes = [f"found {len(labelled)} axial CT slices, labelled by {labels.key}"]
    notes += [f"left out {count} {what}" for what, count in sorted(left_out.items())]
    if unlabelled:
        notes.append(
            f"left out {len(unlabelled)} slices whose {labels.key} ({len(set(unlabelled))} of "
            "them) has no label"
        )
    if len(found) < len(labels.labels):
        notes.append(
            f"{len(labels.labels) - len(found)} keys in the column {labels.key} of data.labels "
            "have no slice"
        )
    if nameless:
        notes.append(f"{nameless} slices have no PatientID: their study stands for the patient")
    if burned:
        notes.append(
            f"{burned} slices may carry burned-in text (BurnedInAnnotation YES): look at the "
            "contact sheet"
        )
    return notes


def _items(
    slices: Iterable[SliceHeader], labels: LabelFile, classes: list[str], salt: bytes
) -> Iterator[Item]:
    """Items by class, patient, series and height; the hashes decide the order of the first two."""
    runs: dict[tuple[int, str, str], list[SliceHeader]] = defaultdict(list)
    for one in slices:
        index = classes.index(labels.labels[one.key][0])
        patient = _hash(salt, "patient", one.patient)[:16]
        # a careless export gives two patients one SeriesInstanceUID
        series = _hash(salt, "series", one.patient, one.series)[:12]
        runs[index, patient, series].append(one)
    for (index, patient, series), run in sorted(runs.items()):
        for number, one in enumerate(_in_order(run), start=1):
            yield Item(
                key=f"series-{series}/slice-{number:04d}",
                class_index=index,
                group=f"patient-{patient}",
                split=labels.labels[one.key][1],
                location=one.name,
            )


def _in_order(run: list[SliceHeader]) -> list[SliceHeader]:
    """Foot to head; by InstanceNumber where the height of any slice is unknown."""
    known = all(one.height is not None for one in run)
    return sorted(run, key=lambda one: (one.height if known else 0, one.number, one.instance))


def _hash(salt: bytes, *parts: str) -> str:
    return hmac.new(salt, "\0".join(parts).encode(), hashlib.sha256).hexdigest()
