"""One DICOM file of a CT series: what its header says of the slice, and its Hounsfield units.

What is read here names a patient. No reason for refusing a file quotes a header value.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import warnings
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pydicom
from pydicom.pixels import get_decoder
from pydicom.uid import UID_dictionary

from gemix.data.decode import check_size
from gemix.data.scan import HIGHEST_HU, LOWEST_HU, BadImage

_AXIAL = math.cos(math.radians(25))  # least |z| of a slice's normal: gantries tilt, planes differ
_TAGS = [
    "BurnedInAnnotation", "ImageOrientationPatient", "ImagePositionPatient", "ImageType",
    "InstanceNumber", "Modality", "PatientID", "SOPInstanceUID", "SeriesInstanceUID",
    "StudyInstanceUID",
]  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class SliceHeader:
    """What listing needs of a header.

    Attributes:
        name: the file's path.
        key: what the label file may name, the patient or the series.
        patient: PatientID, else the study or series.
        has_patient: whether there is a PatientID.
        height: mm along the slice's normal, towards the head; None if not known.
        number: InstanceNumber, 0 if not known.
        is_burned: whether the file says that text is burned into its pixels.
    """

    name: str
    key: str
    patient: str
    has_patient: bool
    series: str
    instance: str
    height: float | None
    number: float
    is_burned: bool


def read_header(name: str, data: bytes, key: str) -> SliceHeader | str:
    """What a file's header says, or in words what the file is if it is no axial CT slice.

    Args:
        data: the file, with or without its pixels.
        key: "patient" or "series", which of them :attr:`SliceHeader.key` is to be.
    """
    if data[128:132] != b"DICM":
        return "files that are not DICOM"
    try:
        with _quiet():
            header = pydicom.dcmread(BytesIO(data), stop_before_pixels=True, specific_tags=_TAGS)
            return _to_slice(name, header, key)
    except Exception:  # pydicom raises nearly anything on a damaged header
        return "DICOM files with a damaged header"


def _to_slice(name: str, header: pydicom.Dataset, key: str) -> SliceHeader | str:
    if _text(header, "Modality") != "CT":
        return "DICOM files that are not CT"
    if "LOCALIZER" in (header.get("ImageType") or ()):
        return "localizers"
    series, instance = _text(header, "SeriesInstanceUID"), _text(header, "SOPInstanceUID")
    if not series or not instance:
        return "CT files without SeriesInstanceUID or SOPInstanceUID"
    axes = _axes(header)
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
    patient = _text(header, "PatientID")
    return SliceHeader(
        name=name,
        key=patient if key == "patient" else series,
        patient=patient or _text(header, "StudyInstanceUID") or series,
        has_patient=bool(patient),
        series=series,
        instance=instance,
        height=height,
        number=float(header.get("InstanceNumber") or 0),
        is_burned=_text(header, "BurnedInAnnotation").upper() == "YES",
    )


def read_hounsfield(data: bytes) -> np.ndarray:
    """Hounsfield units, float32 [H, W] from -1024 to 3071, the patient's right on the left and the
    front on top.

    Raises:
        BadImage: for a file that is damaged or no plain CT slice, in words of our own.
    """
    try:
        with _quiet():
            dataset = pydicom.dcmread(BytesIO(data))
            _check(dataset)
            axes = _axes(dataset)
            if axes is None:
                raise BadImage("no valid ImageOrientationPatient")
            return _upright(_to_hounsfield(dataset), axes)
    except BadImage:
        raise
    except Exception as error:  # of nearly any type, and its text may quote the header
        raise BadImage(
            f"truncated or damaged DICOM file ({type(error).__name__}); copy it again"
        ) from None


def _check(dataset: pydicom.Dataset) -> None:
    """Raises BadImage for what is not one grey CT image of a sane size that can be decoded."""
    frames, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.SamplesPerPixel)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if frames != 1:
        raise BadImage(f"{frames} frames in one file; save one slice a file")
    if samples != 1 or _text(dataset, "PhotometricInterpretation") != "MONOCHROME2":
        raise BadImage(f"{samples} samples a pixel, or not MONOCHROME2: no plain CT slice")
    check_size(columns, rows)
    if "PixelData" not in dataset:
        raise BadImage("no pixel data; copy the file again")
    if dataset.get("RescaleSlope") is None or dataset.get("RescaleIntercept") is None:
        raise BadImage("no RescaleSlope or RescaleIntercept, so its Hounsfield units are unknown")
    syntax, can_decode = dataset.file_meta.TransferSyntaxUID, False
    with contextlib.suppress(NotImplementedError):
        can_decode = get_decoder(syntax).is_available
    if not can_decode:
        # a UID that is not in the standard may be anyone's, even a patient's
        shown = str(syntax) if syntax in UID_dictionary else "a private one"
        raise BadImage(
            f"transfer syntax ({shown}) cannot be decoded here; save it as Explicit VR Little "
            "Endian (1.2.840.10008.1.2.1)"
        )


def _to_hounsfield(dataset: pydicom.Dataset) -> np.ndarray:
    """Float32 [H, W] within -1024 to 3071; padding, which is outside the scan, is air."""
    stored = dataset.pixel_array
    hounsfield = stored * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    if not np.isfinite(hounsfield).all():
        raise BadImage("RescaleSlope or RescaleIntercept is not a finite number")
    padding = dataset.get("PixelPaddingValue")
    if padding is not None:
        # some scanners write the value unsigned though their pixels are signed
        hounsfield[stored == np.int64(padding).astype(stored.dtype)] = LOWEST_HU
    return np.clip(hounsfield, LOWEST_HU, HIGHEST_HU).astype(np.float32)


def _axes(header: pydicom.Dataset) -> np.ndarray | None:
    """Directions along a row and down a column, float64 [2, 3]: x to the left, y to the back."""
    values = header.get("ImageOrientationPatient") or ()
    if len(values) != 6:
        return None
    axes = np.array([float(value) for value in values]).reshape(2, 3)
    return axes if np.allclose(axes @ axes.T, np.eye(2), atol=0.02) else None


def _upright(pixels: np.ndarray, axes: np.ndarray) -> np.ndarray:
    row, column = axes
    if abs(row[0]) < abs(row[1]):  # the patient lay on a side: rows run along y
        pixels, row, column = pixels.T, column, row
    if row[0] < 0:
        pixels = pixels[:, ::-1]
    if column[1] < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _text(header: pydicom.Dataset, keyword: str) -> str:
    value = header.get(keyword)
    return "" if value is None else str(value).strip()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences pydicom, whose warnings and log lines quote header values."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)  # its children's too, unlike `disabled`
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
