"""Pixels that are not square are made so: a disk stays a disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gemix.data.config import DataConfig
from gemix.data.preprocessing.preprocess import preprocess
from gemix.data.preprocessing.spacing import to_square_pixels
from gemix.data.scan import InvalidImageError, Scan
from gemix.data.sources.dicom.source import DicomSource
from gemix.data.sources.nifti.source import NiftiSource
from tests.data.dicom_files import SALT, write
from tests.data.nifti_files import save, slices_of

RADIUS = 30.0  # mm


def disk(row_spacing: float, column_spacing: float, side_mm: float = 96) -> np.ndarray:
    """HU [H, W] of a disk of tissue with a disk of lung in it, in pixels of any shape."""
    rows, columns = round(side_mm / row_spacing), round(side_mm / column_spacing)
    y = (np.arange(rows) + 0.5) * row_spacing - side_mm / 2
    x = (np.arange(columns) + 0.5) * column_spacing - side_mm / 2
    distance = np.hypot(y[:, None], x)
    tissue = np.where(distance < RADIUS, 40.0, -1000.0)
    return np.where(distance < RADIUS / 2, -850, tissue).astype(np.int16)


def assert_round(pixels: np.ndarray) -> None:
    inside = pixels > -400
    height, width = np.ptp(np.nonzero(inside), axis=1) + 1
    assert abs(height / width - 1) < 0.06


def load_dicom(root: Path, stored: np.ndarray, **changes) -> Scan:
    write(root / "a", stored, PatientID="A", **changes)
    write(root / "b", PatientID="B")
    (root / "labels.csv").write_text("patient,class\nA,a\nB,b\n")
    source = DicomSource(str(root), "labels.csv")
    return source.load(source.list().items[0])


@pytest.mark.parametrize("spacing", [(1.5, 0.75), (0.75, 1.5), (1, 1.2)])
@pytest.mark.parametrize("axes", [[1, 0, 0, 0, 1, 0], [0, 1, 0, 1, 0, 0]])
def test_a_disk_in_dicom_stays_a_disk(tmp_path, monkeypatch, spacing, axes):
    monkeypatch.setenv("GEMIX_PATIENT_SALT", SALT)
    stored = (disk(*spacing) + 1024).astype(np.uint16)
    changes = {"PixelSpacing": list(spacing), "ImageOrientationPatient": axes}
    scan = load_dicom(tmp_path, stored, **changes)
    assert scan.pixels.shape[0] == pytest.approx(scan.pixels.shape[1], abs=1)
    assert_round(scan.pixels)
    image = preprocess(scan, DataConfig(resolution=64, windows=("-500/1400",)))[0]
    assert abs((image[:, 32] > 150).sum() - (image[32] > 150).sum()) <= 3


@pytest.mark.parametrize("spacing", [(1.5, 0.75), (0.75, 1.5)])
def test_a_disk_in_nifti_stays_a_disk(tmp_path, spacing):
    pixels = disk(*spacing)
    affine = np.diag([-spacing[1], -spacing[0], 5, 1])
    save(tmp_path / "a" / "p.nii", np.stack([pixels] * 2), affine=affine)
    save(tmp_path / "b" / "q.nii", np.stack([disk(1, 1)] * 2))
    source = NiftiSource(str(tmp_path))
    scan = source.load(slices_of(source, "a/p.nii")[0])
    assert scan.pixels.shape == (128, 128)
    assert_round(scan.pixels)


def test_square_pixels_stay_as_they_are():
    pixels = np.random.default_rng(0).normal(0, 500, (20, 30)).astype(np.float32)
    assert to_square_pixels(pixels, 0.7, 0.7) is pixels
    assert to_square_pixels(pixels, 0.7, 0.706) is pixels
    assert to_square_pixels(pixels, 0.5, 1).shape == (20, 60)
    assert to_square_pixels(pixels, 1.25, 0.5).shape == (50, 30)


@pytest.mark.parametrize("spacing", [(0, 1), (1, -1), (np.nan, 1), (np.inf, 1)])
def test_a_spacing_that_cannot_be_is_refused(spacing):
    with pytest.raises(InvalidImageError, match="pixel spacing is not two positive numbers"):
        to_square_pixels(np.zeros((20, 30), np.float32), *spacing)


def test_pixels_that_would_grow_beyond_measure_are_refused():
    with pytest.raises(InvalidImageError, match="1e\\+06 times the other"):
        to_square_pixels(np.zeros((20, 30), np.float32), 1, 1e-6)


def test_one_number_as_pixel_spacing_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("GEMIX_PATIENT_SALT", SALT)
    with pytest.raises(InvalidImageError, match="PixelSpacing is not two numbers"):
        load_dicom(tmp_path, (disk(1, 1) + 1024).astype(np.uint16), PixelSpacing=0.7)
