"""Values that are claimed to be Hounsfield units but are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gemix.data.preprocessing.hounsfield import has_air
from gemix.data.scan import InvalidImageError
from gemix.data.sources.dicom.source import DicomSource
from gemix.data.sources.nifti.source import NiftiSource
from gemix.io.storage import Store
from tests.data.dicom_files import SALT, write
from tests.data.nifti_files import save, slices_of

SIDE = 48


def chest(seed: int, background: float = -1000) -> np.ndarray:
    """HU int16 [SIDE, SIDE] of a body with two lungs."""
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1) * 2 - 1
    hounsfield = np.where((x / 0.9) ** 2 + (y / 0.7) ** 2 < 1, 40.0, background)
    for centre in (-0.4, 0.4):
        hounsfield[((x - centre) / 0.25) ** 2 + (y / 0.4) ** 2 < 1] = -850
    noise = np.random.default_rng(seed).normal(0, 20, hounsfield.shape)
    return np.rint(hounsfield + noise).astype(np.int16)


def grey(hounsfield: np.ndarray) -> np.ndarray:
    return np.rint(np.clip((hounsfield + 1200) / 1400, 0, 1) * 255).astype(np.uint8)


NOT_HOUNSFIELD = {
    "grey of 8 bits": (grey, np.uint8),
    "0 to 1": (lambda hounsfield: grey(hounsfield) / 255, np.float32),
    "HU + 1024": (lambda hounsfield: np.clip(hounsfield + 1024, 0, None), np.int16),
    "a segmentation": (lambda hounsfield: hounsfield < -500, np.uint8),
    "-1 to 1": (lambda hounsfield: grey(hounsfield) / 127.5 - 1, np.float32),
}


@pytest.mark.parametrize("kind", NOT_HOUNSFIELD)
def test_a_volume_without_air_is_set_aside(tmp_path, kind):
    change, dtype = NOT_HOUNSFIELD[kind]
    volume = np.stack([chest(number) for number in range(3)])
    save(tmp_path / "a" / "good.nii", volume)
    save(tmp_path / "b" / "bad.nii.gz", change(volume), dtype=dtype)
    source = NiftiSource(str(tmp_path))
    for item in slices_of(source, "a/good.nii"):
        assert source.load(item).pixels.min() < -500
    for item in slices_of(source, "b/bad.nii.gz"):
        with pytest.raises(InvalidImageError, match=r"no air .* restore the rescaling"):
            source.load(item)


def test_air_is_looked_for_in_hounsfield_units():
    stored = np.kron([[0, 1024], [1064, 200]], np.ones((9, 9), np.int16))
    assert has_air(stored, 1, -1024)
    assert not has_air(stored)
    assert has_air(1064 - stored, -1, 40)  # a negative slope
    assert not has_air(np.kron([[-2000, -3024], [40, 0]], np.ones((9, 9))))  # padding is no air
    few = np.zeros((100, 100))
    few[50, 50:57] = -1000  # of some 7800 pixels within the circle
    assert not has_air(few)
    few[50, 57] = -1000
    assert has_air(few)
    assert has_air(np.stack([few] * 300))
    assert not has_air(few, ignore=few < 0)


def test_padding_around_the_field_of_view_is_no_air():
    """HU of -2000, a usual padding value, + 1024 is -976."""
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1) * 2 - 1
    volume = np.stack([chest(number) for number in range(3)])
    volume[:, np.hypot(y, x) > 1] = -2000
    assert has_air(volume)
    assert not has_air(volume + 1024)


def plain(hounsfield: np.ndarray, number: int) -> tuple[np.ndarray, int]:
    """Stored values and intercept, as scanners write them."""
    return (np.clip(hounsfield, -1024, None) + 1024).astype(np.uint16), -1024


def make_archive(root: Path, change_slice, **changes) -> DicomSource:
    """Two patients a class, five slices each; those of A0 are written by `change_slice`."""
    lines = ["patient,class"]
    for patient in ("A0", "A1", "B0", "B1"):
        lines.append(f"{patient},{patient[0]}")
        for number in range(1, 6):
            hounsfield = chest(100 * int(patient[1]) + 10 * (patient[0] == "B") + number)
            where = root / f"{patient}-{number}"
            named = {"PatientID": patient, "InstanceNumber": number}
            if patient == "A0":
                stored, intercept = change_slice(hounsfield, number)
                named |= {"RescaleIntercept": intercept} | changes
            else:
                stored, _ = plain(hounsfield, number)
            write(where, stored, **named)
    (root / "labels.csv").write_text("\n".join(lines))
    return DicomSource(str(root), "labels.csv")


@pytest.fixture(autouse=True)
def salt(monkeypatch):
    monkeypatch.setenv("GEMIX_PATIENT_SALT", SALT)


@pytest.mark.parametrize("kind", ["grey of 8 bits", "HU + 1024"])
def test_a_series_without_air_is_set_aside_when_listed(tmp_path, kind):
    change, _ = NOT_HOUNSFIELD[kind]
    source = make_archive(tmp_path, lambda hu, number: (change(hu).astype(np.uint16), 0))
    listing = source.list()
    assert len(listing.items) == 15 and listing.listed == 20
    assert {item.location[:2] for item in listing.items} == {"A1", "B0", "B1"}
    assert [bad.reason[:6] for bad in listing.unusable] == ["no air"] * 5
    assert any(note.startswith("set aside 5 files: no air") for note in listing.notes)


def test_one_slice_of_a_good_series_is_read(tmp_path, monkeypatch):
    source = make_archive(tmp_path, plain)
    read, read_bytes = [], Store.read_bytes

    def spy(store, name, *args):
        read.append(name)
        return read_bytes(store, name, *args)

    monkeypatch.setattr(Store, "read_bytes", spy)
    source.list()
    read.remove("labels.csv")
    assert sorted(name[:2] for name in read) == ["A0", "A1", "B0", "B1"]


def test_padding_is_no_air(tmp_path):
    def padded(hounsfield, number):
        stored = grey(hounsfield).astype(np.int16)
        stored[:5] = -900
        return stored, 0

    source = make_archive(tmp_path, padded, PixelPaddingValue=-900)
    assert len(source.list().unusable) == 5


def test_a_series_needs_air_in_some_slices_alone(tmp_path):
    """Slices of a belly that fill the frame have none."""

    def belly_below_chest(hounsfield, number):
        hounsfield = hounsfield if number > 3 else np.full_like(hounsfield, 40) + number
        hounsfield[0, 0] = 300
        return plain(hounsfield, number)

    listing = make_archive(tmp_path, belly_below_chest).list()
    assert len(listing.items) == 20 and not listing.unusable


@pytest.mark.parametrize("text", ["Z_EFF", "OD", "MGML", "ED", "EDW", "HU_MOD", "PCT"])
def test_other_quantities_are_set_aside(tmp_path, text):
    source = make_archive(tmp_path, plain, RescaleType=text)
    (item, *_) = (item for item in source.list().items if item.location.startswith("A0"))
    with pytest.raises(InvalidImageError, match="RescaleType is not HU"):
        source.load(item)


@pytest.mark.parametrize("text", [None, "HU", "US"])
def test_hounsfield_units_and_an_unspecified_type_are_read(tmp_path, text):
    source = make_archive(tmp_path, plain, RescaleType=text)
    item = next(item for item in source.list().items if item.location == "A0-1")
    expected = np.clip(chest(1), -1024, None)
    np.testing.assert_array_equal(source.load(item).pixels, expected)
