"""Classify DICOM files by their headers, without reading pixels.

Headers name patients. Header values are held in memory alone, and no reason for leaving a file
out quotes one.
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
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MediaStorageDirectoryStorage,
    SecondaryCaptureImageStorage,
)

from gemix.core.errors import DataError
from gemix.data.scan import InvalidImageError
from gemix.data.sources.compression import gunzip, is_gzip
from gemix.data.sources.redact import redact_path
from gemix.data.sources.silence_logger import silence_logger
from gemix.io.storage import Store

INSTANCE_BYTES = 16
MAX_BYTES = 2**28
"""The largest header, inflated or unpacked file: twice the largest slice that is read."""

_PREAMBLE_BYTES = 132  # with "DICM" at its end (DICOM PS3.10, 7.1)
_HEAD_BYTES = 64 * 2**10  # holds nearly every header up to the last tag that is needed
_CHUNK_BYTES = 2**20
_FIRST_GROUPS = (0x0002, 0x0008)  # of a file without preamble: meta information or the data set
_MAX_FIRST_LENGTH = 1024  # bytes of such a file's first value, which is a short text or number
_MULTI_FRAME = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
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
    """Header of an axial CT slice, as far as listing needs it.

    Attributes:
        key: PatientID or SeriesInstanceUID, whichever the label file names.
        patient: PatientID, else the study or series.
        has_patient: whether there is a PatientID.
        series: SeriesInstanceUID.
        instance: 16 bytes, a hash of SOPInstanceUID.
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
class UnusableFile:
    """A file that is, or should be, a DICOM slice but cannot be used, and the reason."""

    reason: str


HeaderResult = SliceHeader | UnusableFile | str
"""An axial CT slice, an unusable file, or a description of another file that is left out."""


def read_headers(store: Store, key: str, names: Sequence[str]) -> list[HeaderResult]:
    """Classify files by the first 64 KiB, or by all of the header where it is longer.

    Args:
        store: where the files are.
        key: "patient" or "series", the source of :attr:`SliceHeader.key`.
        names: of the files.
    """
    with silence_logger("pydicom"):
        return [_read_header(store, key, name) for name in names]


def is_dicom(data: bytes) -> bool:
    """Return whether these first bytes are those of a DICOM file, with or without preamble.

    Old archives and network dumps hold bare data sets, which PACS and viewers read: they begin
    with an element of group 0008, or with meta information of group 0002.
    """
    if data[_PREAMBLE_BYTES - 4 : _PREAMBLE_BYTES] == b"DICM":
        return True
    if len(data) < 8 or int.from_bytes(data[:2], "little") not in _FIRST_GROUPS:
        return False
    has_vr = data[4:6].isalpha() and data[4:6].isupper()
    return has_vr or int.from_bytes(data[4:8], "little") <= _MAX_FIRST_LENGTH


def check_axial_slice(data: bytes) -> None:
    """Check by its header that a file is one that listing an archive would find slices in.

    Raises:
        InvalidImageError: for any file but an axial CT slice, with the reason.
    """
    with silence_logger("pydicom"):
        unpacked = gunzip(data, MAX_BYTES) if is_gzip(data) else data
        found, _ = _parse(unpacked, "series", "")
    if isinstance(found, UnusableFile):
        raise InvalidImageError(found.reason)
    if isinstance(found, str):
        raise InvalidImageError(f"one of the {found}; give axial CT slices")


def image_axes(header: pydicom.Dataset) -> np.ndarray | None:
    """Return the directions along a row and down a column, float64 [2, 3], or None.

    Coordinates are x to the patient's left, y to the back, z to the head.
    """
    values = header.get("ImageOrientationPatient") or ()
    if len(values) != 6:
        return None
    axes = np.array([float(value) for value in values]).reshape(2, 3)
    return axes if np.allclose(axes @ axes.T, np.eye(2), atol=0.02) else None


def get_text(header: pydicom.Dataset, keyword: str) -> str:
    """Return a value as text, empty if there is none."""
    value = header.get(keyword)
    return "" if value is None else str(value).strip()


def check_deflated(data: bytes) -> None:
    """Raise ValueError for a deflated file above `MAX_BYTES`; pydicom sets no limit."""
    if DeflatedExplicitVRLittleEndian.encode() not in data:
        return
    file = io.BytesIO(data)
    if data[_PREAMBLE_BYTES - 4 : _PREAMBLE_BYTES] == b"DICM":
        file.seek(_PREAMBLE_BYTES)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        inflate, left, size = zlib.decompressobj(-zlib.MAX_WBITS), file.read(), 0
        while chunk := inflate.decompress(left, _CHUNK_BYTES):
            left, size = inflate.unconsumed_tail, size + len(chunk)
            if size > MAX_BYTES:
                raise ValueError(f"inflates to more than {MAX_BYTES} bytes")


def _read_header(store: Store, key: str, name: str) -> HeaderResult:
    try:
        with redact_path(store, name):
            raw = store.read_head(name, _HEAD_BYTES)
            if not raw:
                return UnusableFile(reason="empty file (0 bytes); copy it again")
            is_packed = is_gzip(raw)
            data = gunzip(raw, _HEAD_BYTES) if is_packed else raw
            result, is_complete = _parse(data, key, name)
            if not is_complete and len(raw) == _HEAD_BYTES:
                data = store.read_head(name, MAX_BYTES, "gzip" if is_packed else None)
                result, _ = _parse(data, key, name)
            return result
    except DataError:
        return UnusableFile(reason="cannot be read; correct its permissions or copy it again")


def _parse(data: bytes, key: str, name: str) -> tuple[HeaderResult, bool]:
    """Return what the file is, and whether `data` holds all tags that were asked for."""
    if not is_dicom(data):
        ending = next((e for e in (".dcm", ".dcm.gz") if name.lower().endswith(e)), None)
        if ending:
            return UnusableFile(reason=f"ends in {ending} but is not DICOM; copy it again"), True
        return "files that are not DICOM", True
    stop = _StopAfterLastTag()
    try:
        check_deflated(data)
        header = read_partial(io.BytesIO(data), stop, force=True, specific_tags=_TAGS)
        return _to_slice(header, key, stop.is_reached), stop.is_reached
    except Exception:  # pydicom raises nearly anything on a damaged header
        return UnusableFile(reason="damaged DICOM header; copy it again"), False


class _StopAfterLastTag:
    """Stop a parser behind the last tag that is needed, and remember whether it got there."""

    is_reached = False

    def __call__(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        self.is_reached = tag > _LAST_TAG
        return self.is_reached


def _to_slice(header: pydicom.FileDataset, key: str, is_complete: bool) -> HeaderResult:
    modality = get_text(header, "Modality")
    is_index = header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
    if is_index or modality not in ("CT", ""):
        return "DICOM files that are not CT"
    if "LOCALIZER" in (header.get("ImageType") or ()):
        return "localizers"
    if get_text(header, "SOPClassUID") in _MULTI_FRAME:
        return UnusableFile(
            reason="Enhanced CT, a series in one file; export it as CT Image Storage or split it "
            "into one slice a file (emf2sf of dcm4che), or convert it (dcm2niix) for "
            "data.source=nifti"
        )
    series, instance = get_text(header, "SeriesInstanceUID"), get_text(header, "SOPInstanceUID")
    if not modality or not series or not instance:
        lacks = "Modality, SeriesInstanceUID or SOPInstanceUID"
        return UnusableFile(reason=f"DICOM header without {lacks}, or truncated; copy it again")
    axes = image_axes(header)
    if axes is None and not is_complete:
        return UnusableFile(reason="truncated DICOM header; copy it again")
    if axes is None:  # such as reports that scanners save among the slices
        return "CT files without a valid ImageOrientationPatient"
    normal = np.cross(*axes)
    if abs(normal[2]) < _AXIAL:
        return "CT slices that are not axial"
    position = header.get("ImagePositionPatient") or ()
    height = None
    if len(position) == 3 and all(math.isfinite(value) for value in position):
        # the normal of a flipped image points to the feet
        along = float(np.dot(position, normal) * np.sign(normal[2]))
        height = round(along, 3)  # rounding errors must not order copies at one height
    patient = get_text(header, "PatientID")
    return SliceHeader(
        key=patient if key == "patient" else series,
        patient=patient or get_text(header, "StudyInstanceUID") or series,
        has_patient=bool(patient),
        series=series,
        instance=hashlib.blake2b(instance.encode(), digest_size=INSTANCE_BYTES).digest(),
        height=height,
        number=float(header.get("InstanceNumber") or 0),
        is_burned=_may_have_burned_in_text(header),
    )


def _may_have_burned_in_text(header: pydicom.Dataset) -> bool:
    """Return whether the file says so, or is a secondary image that does not deny it.

    Captures of a screen or film show names more often than their headers admit.
    """
    annotation = get_text(header, "BurnedInAnnotation").upper()
    if annotation in ("YES", "NO"):
        return annotation == "YES"
    # the dot: multi-frame captures append a component to the UID, other classes differ in digits
    kind = f"{get_text(header, 'SOPClassUID')}."
    is_capture = kind.startswith(f"{SecondaryCaptureImageStorage}.")
    is_secondary = "SECONDARY" in (header.get("ImageType") or ())
    return is_capture or is_secondary or bool(get_text(header, "ConversionType"))
