"""Decode one DICOM file of a CT series to Hounsfield units (HU).

Headers name patients: no reason for refusing a file quotes a header value.
"""

from __future__ import annotations

import contextlib
import dataclasses
from io import BytesIO

import cv2
import numpy as np
import pydicom
from pydicom.multival import MultiValue
from pydicom.pixels import get_decoder
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
    UID_dictionary,
)

from gemix.data.preprocessing.decode import check_size
from gemix.data.preprocessing.hounsfield import has_air, inscribed_ellipse
from gemix.data.preprocessing.spacing import to_square_pixels
from gemix.data.scan import HIGHEST_HU, LOWEST_HU, InvalidImageError
from gemix.data.sources.compression import gunzip, is_gzip
from gemix.data.sources.dicom.header import MAX_BYTES, check_deflated, get_text, image_axes
from gemix.data.sources.silence_logger import silence_logger

_TISSUE_HU = (-900.0, 2000.0)  # from lung to cortical bone; tooth enamel and metal exceed it
_UNCOMPRESSED = "Explicit VR Little Endian (1.2.840.10008.1.2.1)"
_SINGLE_VALUED = (
    "BitsAllocated", "BitsStored", "Columns", "NumberOfFrames", "PhotometricInterpretation",
    "PixelPaddingRangeLimit", "PixelPaddingValue", "PixelRepresentation", "RescaleIntercept",
    "RescaleSlope", "RescaleType", "Rows", "SamplesPerPixel",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Slice:
    """A decoded slice as it is stored.

    Attributes:
        hounsfield: float64 [H, W], not clipped.
        is_padding: bool [H, W], pixels that the header declares to be outside the scan.
        axes: float64 [2, 3], as :func:`image_axes` returns them.
        spacing: mm from row to row and from column to column.
    """

    hounsfield: np.ndarray
    is_padding: np.ndarray
    axes: np.ndarray
    spacing: tuple[float, float]


def read_hounsfield(data: bytes) -> np.ndarray:
    """Decode a CT slice to HU.

    Returns:
        float32 [H, W] from -1024 to 3071: square pixels, the patient's right on the left and the
        front on top. Padding is air.

    Raises:
        InvalidImageError: for a file that is damaged or not a plain CT slice.
    """
    stored = _decode(data)
    pixels = stored.hounsfield
    pixels[_is_outside(pixels, stored.is_padding)] = LOWEST_HU
    pixels = np.clip(pixels, LOWEST_HU, HIGHEST_HU).astype(np.float32)
    return _to_radiological(to_square_pixels(pixels, *stored.spacing), stored.axes)


def slice_has_air(data: bytes) -> bool | None:
    """Return whether a slice holds air, or None for a blank one; padding does not count.

    Raises:
        InvalidImageError: as :func:`read_hounsfield` does.
    """
    stored = _decode(data)
    scanned = stored.hounsfield[~stored.is_padding]
    if scanned.size == 0 or scanned.min() == scanned.max():
        return None
    return has_air(stored.hounsfield, ignore=stored.is_padding)


def _decode(data: bytes) -> _Slice:
    try:
        with silence_logger("pydicom"):
            if is_gzip(data):
                data = gunzip(data, MAX_BYTES)
            check_deflated(data)
            dataset = pydicom.dcmread(BytesIO(data), force=True)
            _check(dataset)
            axes = image_axes(dataset)
            if axes is None:
                raise InvalidImageError("no valid ImageOrientationPatient")
            hounsfield, is_padding = _to_hounsfield(dataset)
            return _Slice(
                hounsfield=hounsfield, is_padding=is_padding, axes=axes, spacing=_spacing(dataset)
            )
    except InvalidImageError:
        raise
    except Exception as error:  # of nearly any type, and its text may quote the header
        raise InvalidImageError(
            f"truncated or damaged DICOM file ({type(error).__name__}); copy it again"
        ) from None


def _check(dataset: pydicom.FileDataset) -> None:
    """Raise InvalidImageError unless it is one grey CT image of a sane size that can be decoded."""
    for keyword in _SINGLE_VALUED:
        value = dataset.get(keyword)
        if isinstance(value, MultiValue):
            raise InvalidImageError(
                f"{keyword} has {len(value)} values, so its Hounsfield units are ambiguous; set "
                "the one that holds for this slice, or export the file again"
            )
    frames, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.SamplesPerPixel)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if frames != 1:
        raise InvalidImageError(
            f"{frames} frames in one file; split it into one slice a file (emf2sf of dcm4che)"
        )
    if samples != 1 or get_text(dataset, "PhotometricInterpretation") != "MONOCHROME2":
        raise InvalidImageError(
            f"{samples} samples a pixel, or not MONOCHROME2: not a plain CT slice"
        )
    check_size(columns, rows)
    if "PixelData" not in dataset:
        raise InvalidImageError("no pixel data; copy the file again")
    _check_rescaling(dataset)
    _check_transfer_syntax(dataset)


def _check_rescaling(dataset: pydicom.FileDataset) -> None:
    if dataset.get("RescaleSlope") is None or dataset.get("RescaleIntercept") is None:
        raise InvalidImageError(
            "no RescaleSlope or RescaleIntercept, so its Hounsfield units are unknown; export it "
            "again with both"
        )
    # Absent means HU (PS3.3 C.8.2.1). US, "unspecified", claims nothing, and archives write it
    # for plain CT too: there the air in the series decides. All other terms are other quantities.
    if get_text(dataset, "RescaleType").upper() not in ("", "HU", "US"):
        raise InvalidImageError(
            "its RescaleType is not HU (Hounsfield units), as of material maps of dual-energy "
            "scanners; export the plain CT series instead, or remove it"
        )


def _check_transfer_syntax(dataset: pydicom.FileDataset) -> None:
    """Raise InvalidImageError for pixels that cannot be decoded; complete a bare data set."""
    if not dataset.file_meta:  # no preamble and no meta information: the default encoding
        dataset.file_meta.TransferSyntaxUID = _native_syntax(dataset)
    syntax, can_decode = dataset.file_meta.get("TransferSyntaxUID"), False
    if syntax is None:
        raise InvalidImageError(
            "no TransferSyntaxUID in its File Meta Information, so how its pixels are encoded is "
            "unknown; export it again, or set the tag (0002,0010)"
        )
    if syntax == JPEGExtended12Bit and int(dataset.BitsStored) > 8:
        raise InvalidImageError(
            f"12-bit JPEG (transfer syntax {syntax}) cannot be decoded here; decompress it to "
            f"{_UNCOMPRESSED}: dcmdjpeg of DCMTK or gdcmconv --raw"
        )
    with contextlib.suppress(NotImplementedError):
        can_decode = get_decoder(syntax).is_available
    if not can_decode:
        # a UID that is not in the standard may be anyone's, even a patient's
        shown = str(syntax) if syntax in UID_dictionary else "a private one"
        raise InvalidImageError(
            f"transfer syntax ({shown}) cannot be decoded here; save it as {_UNCOMPRESSED}: "
            "gdcmconv --raw, or dcmdjpeg of DCMTK"
        )


def _native_syntax(dataset: pydicom.FileDataset) -> pydicom.uid.UID:
    """Return the transfer syntax that pydicom read a bare data set with."""
    if dataset["PixelData"].is_undefined_length:
        raise InvalidImageError(
            "compressed pixels in a file without File Meta Information, so how they are encoded "
            "is unknown; export it again"
        )
    is_implicit, is_little = dataset.original_encoding
    if is_implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian


def _to_hounsfield(dataset: pydicom.FileDataset) -> tuple[np.ndarray, np.ndarray]:
    """Return HU, float64 [H, W], and which pixels the header declares as padding, bool [H, W]."""
    stored = dataset.pixel_array
    hounsfield = stored * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    if not np.isfinite(hounsfield).all():
        raise InvalidImageError(
            "RescaleSlope or RescaleIntercept is not a finite number; correct the header"
        )
    padding = dataset.get("PixelPaddingValue")
    if padding is None:
        return hounsfield, np.zeros(stored.shape, dtype=bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    limit = padding if limit is None else limit
    # some scanners write the values unsigned though their pixels are signed
    ends = [
        np.int64(v).astype(stored.dtype) for v in (padding, padding if limit is None else limit)
    ]
    return hounsfield, (stored >= min(ends)) & (stored <= max(ends))


def _is_outside(hounsfield: np.ndarray, is_padding: np.ndarray) -> np.ndarray:
    """Return which pixels lie outside the scan: bool [H, W].

    Declared padding beyond `_TISSUE_HU` is believed. Padding that tissue may have too is believed
    only in the corners around a circular field of view, that is, where one value fills the frame
    beyond its inscribed circle: elsewhere it would punch holes into the body.
    """
    low, high = _TISSUE_HU
    doubtful = is_padding & (hounsfield >= low) & (hounsfield <= high)
    outside = is_padding & ~doubtful
    beyond = hounsfield[~inscribed_ellipse(hounsfield.shape)]
    if doubtful[0, 0] and beyond.min() == beyond.max():
        same = doubtful & (hounsfield == beyond[0])
        _, labels = cv2.connectedComponents(same.view(np.uint8), connectivity=4)
        outside |= np.isin(labels, labels[[0, 0, -1, -1], [0, -1, 0, -1]])
    return outside


def _spacing(dataset: pydicom.FileDataset) -> tuple[float, float]:
    """Return mm from row to row and from column to column; equal ones where there are none."""
    values = dataset.get("PixelSpacing")
    if not values:
        return 1.0, 1.0
    if not isinstance(values, MultiValue) or len(values) != 2:
        raise InvalidImageError("PixelSpacing is not two numbers; correct the header")
    return float(values[0]), float(values[1])


def _to_radiological(pixels: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Turn the patient's right to the left and the front to the top."""
    row, column = axes
    if abs(row[0]) < abs(row[1]):  # the patient lay on a side: rows run along y
        pixels, row, column = pixels.T, column, row
    if row[0] < 0:
        pixels = pixels[:, ::-1]
    if column[1] < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
