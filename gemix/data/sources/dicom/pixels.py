"""One DICOM file of a CT series to Hounsfield units.

What is read here names a patient. No reason for refusing a file quotes a header value.
"""

from __future__ import annotations

import contextlib
from io import BytesIO

import numpy as np
import pydicom
from pydicom.pixels import get_decoder
from pydicom.uid import UID_dictionary

from gemix.data.preprocessing.decode import check_size
from gemix.data.scan import HIGHEST_HU, LOWEST_HU, InvalidImageError
from gemix.data.sources.dicom.header import axes_of, check_deflated, text_of
from gemix.data.sources.silence import quiet


def read_hounsfield(data: bytes) -> np.ndarray:
    """Hounsfield units, float32 [H, W] from -1024 to 3071, the patient's right on the left and the
    front on top.

    Raises:
        InvalidImageError: for a file that is damaged or no plain CT slice, in words of our own.
    """
    try:
        with quiet("pydicom"):
            check_deflated(data)
            dataset = pydicom.dcmread(BytesIO(data))
            _check(dataset)
            axes = axes_of(dataset)
            if axes is None:
                raise InvalidImageError("no valid ImageOrientationPatient")
            return _upright(_to_hounsfield(dataset), axes)
    except InvalidImageError:
        raise
    except Exception as error:  # of nearly any type, and its text may quote the header
        raise InvalidImageError(
            f"truncated or damaged DICOM file ({type(error).__name__}); copy it again"
        ) from None


def _check(dataset: pydicom.Dataset) -> None:
    """Raise InvalidImageError unless it is one grey CT image of a sane size that can be decoded."""
    frames, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.SamplesPerPixel)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if frames != 1:
        raise InvalidImageError(f"{frames} frames in one file; save one slice a file")
    if samples != 1 or text_of(dataset, "PhotometricInterpretation") != "MONOCHROME2":
        raise InvalidImageError(f"{samples} samples a pixel, or not MONOCHROME2: no plain CT slice")
    check_size(columns, rows)
    if "PixelData" not in dataset:
        raise InvalidImageError("no pixel data; copy the file again")
    if dataset.get("RescaleSlope") is None or dataset.get("RescaleIntercept") is None:
        raise InvalidImageError(
            "no RescaleSlope or RescaleIntercept, so its Hounsfield units are unknown"
        )
    syntax, can_decode = dataset.file_meta.TransferSyntaxUID, False
    with contextlib.suppress(NotImplementedError):
        can_decode = get_decoder(syntax).is_available
    if not can_decode:
        # a UID that is not in the standard may be anyone's, even a patient's
        shown = str(syntax) if syntax in UID_dictionary else "a private one"
        raise InvalidImageError(
            f"transfer syntax ({shown}) cannot be decoded here; save it as Explicit VR Little "
            "Endian (1.2.840.10008.1.2.1)"
        )


def _to_hounsfield(dataset: pydicom.Dataset) -> np.ndarray:
    """Float32 [H, W] within -1024 to 3071; padding, which is outside the scan, is air."""
    stored = dataset.pixel_array
    hounsfield = stored * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    if not np.isfinite(hounsfield).all():
        raise InvalidImageError("RescaleSlope or RescaleIntercept is not a finite number")
    padding = dataset.get("PixelPaddingValue")
    if padding is not None:
        # some scanners write the value unsigned though their pixels are signed
        hounsfield[stored == np.int64(padding).astype(stored.dtype)] = LOWEST_HU
    return np.clip(hounsfield, LOWEST_HU, HIGHEST_HU).astype(np.float32)


def _upright(pixels: np.ndarray, axes: np.ndarray) -> np.ndarray:
    row, column = axes
    if abs(row[0]) < abs(row[1]):  # the patient lay on a side: rows run along y
        pixels, row, column = pixels.T, column, row
    if row[0] < 0:
        pixels = pixels[:, ::-1]
    if column[1] < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
