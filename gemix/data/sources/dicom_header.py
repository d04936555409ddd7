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
from pydicom.uid import DeflatedExplicitVRLittleEndian

from gemix.data.sources.quiet import quiet
from gemix.errors import DataError
from gemix.storage import Store

UNREADABLE = "files that could not be read"
INSTANCE_BYTES = 16

_PREAMBLE_BYTES = 132  # with the magic word at its end (DICOM PS3.10, 7.1)
_HEAD_BYTES = 64 * 2**10  # holds nearly every header up to the last tag that is needed
_MOST_BYTES = 2**28  # of a header or an inflated file: twice the largest slice that is read
_PIECE_BYTES = 2**20
_AXIAL = math.cos(math.radians(25))  # least |z| of a slice's normal: gantries tilt, planes differ
_TAGS = [
    Tag(keyword)
    for keyword in (
        "BurnedInAnnotation", "ImageOrientationPatient", "ImagePositionPatient", "ImageType",
        "InstanceNumber", "Modality", "PatientID", "SOPInstanceUID", "SeriesInstanceUID",
        "StudyInstanceUID",
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
        is_burned: whether the file says that text is burned into its pixels.
    """

    key: str
    patient: str
    has_patient: bool
    series: str
    instance: bytes
    height: float | None
    number: float
    is_burned: bool


def read_headers(store: Store, key: str, names: Sequence[str]) -> list[SliceHeader | str]:
    """For each file what its header says, or in words what it is if it is no axial CT slice.

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


def _read_header(store: Store, key: str, name: str) -> SliceHeader | str:
    try:
        data = store.read_head(name, _HEAD_BYTES)
        if data[_PREAMBLE_BYTES - 4 : _PREAMBLE_BYTES] != b"DICM":
            return "files that are not DICOM"
        found, is_enough = _parse(data, key)
        if not is_enough and len(data) == _HEAD_BYTES:
            found, _ = _parse(store.read_head(name, _MOST_BYTES), key)
        return found
    except DataError:
        return UNREADABLE


def _parse(data: bytes, key: str) -> tuple[SliceHeader | str, bool]:
    """What the header says, and whether `data` reached as far as was asked for."""
    head = _Head(data)
    try:
        check_deflated(data)
        header = read_partial(head, _is_past_last, specific_tags=_TAGS)
        return _to_slice(header, key), not head.ran_out
    except Exception:  # pydicom raises nearly anything on a damaged header
        return "DICOM files with a damaged header", False


class _Head(io.BytesIO):
    """The beginning of a file; `ran_out` once more was asked for than it holds."""

    ran_out = False

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if size is None or size < 0 or len(data) < size:
            self.ran_out = True
        return data


def _is_past_last(tag: BaseTag, vr: str | None, length: int) -> bool:
    del vr, length
    return tag > _LAST_TAG


def _to_slice(header: pydicom.Dataset, key: str) -> SliceHeader | str:
    if text_of(header, "Modality") != "CT":
        return "DICOM files that are not CT"
    if "LOCALIZER" in (header.get("ImageType") or ()):
        return "localizers"
    series, instance = text_of(header, "SeriesInstanceUID"), text_of(header, "SOPInstanceUID")
    if not series or not instance:
        return "CT files without SeriesInstanceUID or SOPInstanceUID"
    axes = axes_of(header)
    if axes is None:
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
        is_burned=text_of(header, "BurnedInAnnotation").upper() == "YES",
    )
