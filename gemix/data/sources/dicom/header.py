"""What the header of one DICOM file says of its slice, read without its pixels.

What is read here names a patient. What leaves is held in memory alone, and no reason for leaving
a file out quotes a header value.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import zlib
from collections.abc import Sequence

import numpy as np
import pydicom
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    SecondaryCaptureImageStorage,
)

from gemix.core.errors import DataError
from gemix.data.sources.redact import redact_path
from gemix.data.sources.silence import quiet
from gemix.io.storage import Store

INSTANCE_BYTES = 16

_PREAMBLE_BYTES = 132  # with the magic word at its end (DICOM PS3.10, 7.1)
_HEAD_BYTES = 64 * 2**10  # holds nearly every header up to the last tag that is needed
_MOST_BYTES = 2**28  # of a header or an inflated file: twice the largest slice that is read
_PIECE_BYTES = 2**20
_AXIAL = math.cos(math.radians(25))  # least |z| of a slice's normal: gantries tilt, planes differ
_TAGS = [
    Tag(keyword)
    for keyword in (
        "BurnedInAnnotation", "ConversionType", "ImageOrientationPatient", "ImagePositionPatient",
        "ImageType", "InstanceNumber", "Modality", "PatientID", "SOPClassUID", "SOPInstanceUID",
        "SeriesInstanceUID", "StudyInstanceUID",
    )
]  # fmt: skip
_LAST_TAG = max(_TAGS)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SliceHeader:
    """What listing needs of a header.

    Attributes:
        key: what the label file may name, the patient or the series.
        patient: PatientID, else the study or series.
        has_patient: whether there is a PatientID.
        instance: 16 bytes that are equal for equal SOPInstanceUIDs.
        height: mm along the slice's normal, towards the head; None if not known.
        number: InstanceNumber, 0 if not known.
        is_burned: whether text may be burned into its pixels.
    """

    key: str
    patient: str
    has_patient: bool
    series: str
    instance: bytes
    height: float | None
    number: float
    is_burned: bool


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Damaged:
    """A file that is, or should be, DICOM but cannot be used; why not."""

    reason: str


Found = SliceHeader | Damaged | str
"""What a file is: an axial CT slice, damaged, or in words what else, if that is no mistake."""


def read_headers(store: Store, key: str, names: Sequence[str]) -> list[Found]:
    """What each file is.

    The first 64 KiB are read, and the rest of the few files whose header is longer.

    Args:
        store: where the files are.
        key: "patient" or "series", which of them :attr:`SliceHeader.key` is to be.
        names: of the files.
    """
    with quiet("pydicom"):
        return [_read_header(store, key, name) for name in names]


def axes_of(header: pydicom.Dataset) -> np.ndarray | None:
    """Directions along a row and down a column, float64 [2, 3]: x to the left, y to the back."""
    values = header.get("ImageOrientationPatient") or ()
    if len(values) != 6:
        return None
    axes = np.array([float(value) for value in values]).reshape(2, 3)
    return axes if np.allclose(axes @ axes.T, np.eye(2), atol=0.02) else None


def text_of(header: pydicom.Dataset, keyword: str) -> str:
    """The value as text, empty if there is none."""
    value = header.get(keyword)
    return "" if value is None else str(value).strip()


def check_deflated(data: bytes) -> None:
    """Raises ValueError for a deflated file that grows beyond measure; pydicom sets no limit."""
    if DeflatedExplicitVRLittleEndian.encode() not in data:
        return
    file = io.BytesIO(data)
    file.seek(_PREAMBLE_BYTES)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        inflate, left, size = zlib.decompressobj(-zlib.MAX_WBITS), file.read(), 0
        while piece := inflate.decompress(left, _PIECE_BYTES):
            left, size = inflate.unconsumed_tail, size + len(piece)
            if size > _MOST_BYTES:
                raise ValueError(f"inflates to more than {_MOST_BYTES} bytes")


def _read_header(store: Store, key: str, name: str) -> Found:
    try:
        with redact_path(store, name):
            data = store.read_head(name, _HEAD_BYTES)
            found, is_whole = _parse(data, key, name)
            if not is_whole and len(data) == _HEAD_BYTES:
                found, _ = _parse(store.read_head(name, _MOST_BYTES), key, name)
            return found
    except DataError:
        return Damaged(reason="cannot be read; mend its permissions or copy it again")


def _parse(data: bytes, key: str, name: str) -> tuple[Found, bool]:
    """What the file is, and whether `data` reached as far as was asked for."""
    if not data:
        return Damaged(reason="empty file (0 bytes); copy it again"), True
    if data[_PREAMBLE_BYTES - 4 : _PREAMBLE_BYTES] != b"DICM":
        if name.lower().endswith(".dcm"):
            return Damaged(reason="ends in .dcm but is not DICOM; copy it again"), True
        return "files that are not DICOM", True
    stop = _Stop()
    try:
        check_deflated(data)
        header = read_partial(io.BytesIO(data), stop, specific_tags=_TAGS)
        return _to_slice(header, key, stop.is_reached), stop.is_reached
    except Exception:  # pydicom raises nearly anything on a damaged header
        return Damaged(reason="damaged DICOM header; copy it again"), False


class _Stop:
    """Tells a parser where to stop; `is_reached` once it came so far."""

    is_reached = False

    def __call__(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        self.is_reached = tag > _LAST_TAG
        return self.is_reached


def _to_slice(header: pydicom.FileDataset, key: str, is_whole: bool) -> Found:
    modality = text_of(header, "Modality")
    is_index = header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
    if is_index or modality not in ("CT", ""):
        return "DICOM files that are not CT"
    if "LOCALIZER" in (header.get("ImageType") or ()):
        return "localizers"
    series, instance = text_of(header, "SeriesInstanceUID"), text_of(header, "SOPInstanceUID")
    if not modality or not series or not instance:
        lacks = "Modality, SeriesInstanceUID or SOPInstanceUID"
        return Damaged(reason=f"DICOM header without {lacks}, or truncated; copy it again")
    axes = axes_of(header)
    if axes is None and not is_whole:
        return Damaged(reason="truncated DICOM header; copy it again")
    if axes is None:  # as of the reports that scanners save among the slices
        return "CT files without a valid ImageOrientationPatient"
    normal = np.cross(*axes)
    if abs(normal[2]) < _AXIAL:
        return "CT slices that are not axial"
    position = header.get("ImagePositionPatient") or ()
    height = None
    if len(position) == 3 and all(math.isfinite(value) for value in position):
        # the sign of the normal turns with a flipped image, the way to the head does not
        along = float(np.dot(position, normal) * np.sign(normal[2]))
        height = round(along, 3)  # a copy at one height must not be ordered by rounding errors
    patient = text_of(header, "PatientID")
    return SliceHeader(
        key=patient if key == "patient" else series,
        patient=patient or text_of(header, "StudyInstanceUID") or series,
        has_patient=bool(patient),
        series=series,
        instance=hashlib.blake2b(instance.encode(), digest_size=INSTANCE_BYTES).digest(),
        height=height,
        number=float(header.get("InstanceNumber") or 0),
        is_burned=_may_be_burned(header),
    )


def _may_be_burned(header: pydicom.Dataset) -> bool:
    """Whether the file says so, or is secondary (of a screen, a film, other images) and does not
    deny it: those show names more often than they admit.
    """
    said = text_of(header, "BurnedInAnnotation").upper()
    if said in ("YES", "NO"):
        return said == "YES"
    # the dot: the classes of several frames end in one number more, other classes in other digits
    is_capture = f"{text_of(header, 'SOPClassUID')}.".startswith(f"{SecondaryCaptureImageStorage}.")
    is_secondary = "SECONDARY" in (header.get("ImageType") or ())
    return is_capture or is_secondary or bool(text_of(header, "ConversionType"))
