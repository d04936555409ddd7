from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
)

from gemix.data.scan import InvalidImageError
from gemix.data.sources.dicom.source import DicomSource
from tests.data.dicom_files import (
    CANARY_UID,
    SALT,
    SUPINE,
    assert_no_canary,
    body,
    write,
    write_archive,
)


@pytest.fixture(autouse=True)
def salt(monkeypatch):
    monkeypatch.setenv("GEMIX_PATIENT_SALT", SALT)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., DicomSource]:
    """Writes an archive of patients named in full, some slices each, and its label file."""
    return functools.partial(write_archive, tmp_path / "archive")


def load(path: Path, stored: np.ndarray | None = None, **changes) -> np.ndarray:
    """Loads one slice by way of a listing of it and a slice of another class."""
    write(path / "a", stored, PatientID="A", **changes)
    write(path / "b", PatientID="B")
    (path / "labels.csv").write_text("patient,class\nA,a\nB,b\n")
    source = DicomSource(str(path), "labels.csv")
    scan = source.load(source.list().items[0])
    assert scan.is_hounsfield
    return scan.pixels


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_hounsfield_units_are_exact(tmp_path, syntax):
    stored = np.arange(48 * 48, dtype=np.int16).reshape(48, 48) * 2 - 2000
    stored[0, 0] = -3024
    pixels = load(
        tmp_path,
        stored,
        syntax=syntax,
        RescaleSlope=2,
        RescaleIntercept=-24,
        PixelPaddingValue=2600,
    )
    expected = np.clip(stored * 2.0 - 24, -1024, 3071)
    expected[stored == 2600] = -1024
    assert (stored == 2600).any()
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize(
    ("axes", "turn"),
    [
        (SUPINE, lambda image: image),
        ([-1, 0, 0, 0, 1, 0], lambda image: image[:, ::-1]),
        ([1, 0, 0, 0, -1, 0], lambda image: image[::-1]),
        ([-1, 0, 0, 0, -1, 0], lambda image: image[::-1, ::-1]),
        ([0, 1, 0, 1, 0, 0], lambda image: image.T),
        ([0, 1, 0, -1, 0, 0], lambda image: np.rot90(image, 1)),
    ],
)
def test_every_slice_shows_the_patients_right_on_the_left_and_the_front_on_top(
    tmp_path, axes, turn
):
    stored = body()
    pixels = load(tmp_path, turn(stored), ImageOrientationPatient=axes)
    np.testing.assert_array_equal(pixels, stored - np.float32(1024))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PixelData": None}, "no pixel data"),
        ({"RescaleSlope": None}, "no RescaleSlope or RescaleIntercept"),
        ({"RescaleIntercept": None}, "no RescaleSlope or RescaleIntercept"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "not MONOCHROME2"),
        ({"SamplesPerPixel": 3}, "3 samples a pixel"),
        ({"NumberOfFrames": 2}, "2 frames in one file"),
        ({"Rows": 8193}, "48 x 8193 pixels; sides from 16 to 8192"),
        ({"Columns": 15}, "15 x 48 pixels; sides from 16 to 8192"),
        ({"Rows": 96}, r"truncated or damaged DICOM file \(ValueError\)"),
        ({"BitsStored": None}, r"truncated or damaged DICOM file \(AttributeError\)"),
        ({"syntax": JPEGLosslessSV1}, r"transfer syntax \(1\.2\.840\.10008\.1\.2\.4\.70\)"),
        ({"syntax": UID(f"{CANARY_UID}.1")}, r"transfer syntax \(a private one\)"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path, changes, reason):
    with pytest.raises(InvalidImageError, match=reason) as caught:
        load(tmp_path, **changes)
    assert_no_canary(str(caught.value))
    assert str(tmp_path) not in str(caught.value)


def frame_of_noise() -> np.ndarray:
    """Stored values int16 of tissue, 30 to 49 HU, to every edge; air in two lungs."""
    stored = np.random.default_rng(0).integers(1054, 1074, (48, 48)).astype(np.int16)
    stored[10:38, 8:20] = stored[10:38, 28:40] = 174
    return stored


def test_a_padding_value_that_is_tissue_punches_no_holes(tmp_path):
    stored = frame_of_noise()
    assert (stored == 1064).any()
    np.testing.assert_array_equal(load(tmp_path, stored, PixelPaddingValue=1064), stored - 1024.0)


@pytest.mark.parametrize(("value", "limit"), [(1054, 1074), (1074, 1054)])
def test_a_padding_range_of_tissue_punches_no_holes(tmp_path, value, limit):
    stored = frame_of_noise()
    ends = {"PixelPaddingValue": value, "PixelPaddingRangeLimit": limit}
    np.testing.assert_array_equal(load(tmp_path, stored, **ends), stored - 1024.0)


@pytest.mark.parametrize(("value", "limit"), [(3500, 4095), (4095, 3500), (0, 100)])
def test_all_of_a_padding_range_is_air(tmp_path, value, limit):
    stored = frame_of_noise()
    expected = stored - 1024.0
    stored[:4] = np.linspace(min(value, limit), max(value, limit), 48).astype(np.int16)
    expected[:4] = -1024
    ends = {"PixelPaddingValue": value, "PixelPaddingRangeLimit": limit}
    np.testing.assert_array_equal(load(tmp_path, stored, **ends), expected)


def test_padding_of_water_around_a_field_of_view_is_air(tmp_path):
    stored = frame_of_noise()
    y, x = np.mgrid[:48, :48] - 23.5
    corners = np.hypot(y, x) > 23
    stored[corners] = 1060
    expected = np.where(corners, -1024, stored - 1024.0)
    inner = (stored == 1060) & (np.hypot(y, x) < 21)
    assert inner.any()
    pixels = load(tmp_path, stored, PixelPaddingValue=1060)
    np.testing.assert_array_equal(pixels[inner], 36)
    assert (pixels != expected).mean() < 0.01  # tissue of this value that touches the corners


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_cut_short_is_a_bad_image(make, share):
    source = make(patients=1, slices=1)
    item = source.list().items[0]
    path = Path(source.store.url) / item.location
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InvalidImageError, match="truncated or damaged"):
        source.load(item)
    path.unlink()
    with pytest.raises(InvalidImageError, match="gone or cannot be read") as caught:
        source.load(item)
    assert_no_canary(str(caught.value))
