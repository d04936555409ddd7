from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_files import (
    CANARY_UID,
    SALT,
    SUPINE,
    assert_no_canary,
    body,
    write,
    write_archive,
)
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
)

from gemix.data.scan import InvalidImageError
from gemix.data.sources.dicom.source import DicomSource


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
