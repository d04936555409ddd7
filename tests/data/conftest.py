"""Small scans on a disk, made for the occasion."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from gemix.data.config import PhantomConfig
from gemix.data.phantom import render_slice
from gemix.data.preprocessing.windows import apply_window


@pytest.fixture(scope="session")
def grey_slices() -> list[np.ndarray]:
    """Twelve phantom slices as 8-bit images with a table in view: uint8 [96, 96]."""
    config = PhantomConfig(slices_per_patient=2)
    return [
        apply_window(render_slice(config, "cancer", i // 2, i % 2, 96), -500, 1400)
        for i in range(12)
    ]


def chequered_body(patient: tuple[int, ...], number: int) -> np.ndarray:
    """A "slice" of a body that no other patient's resembles: uint8 [96, 96], no two alike."""
    blocks = np.random.default_rng(patient).integers(90, 240, (8, 8))
    pixels = np.zeros((96, 96), np.int64)
    pixels[8:88, 8:88] = blocks.repeat(10, axis=0).repeat(10, axis=1)
    noise = np.random.default_rng((*patient, number)).integers(-8, 9, pixels.shape)
    return np.where(pixels > 0, pixels + noise, 0).astype(np.uint8)


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder with one sub-folder a class and so many PNG files in each.

    Nothing but their looks and order says that every two files are of one patient.
    """

    def make(name: str = "scans", **classes: int) -> Path:
        root = tmp_path / name
        for class_index, (class_name, count) in enumerate((classes or {"a": 6, "b": 6}).items()):
            (root / class_name).mkdir(parents=True)
            for i in range(count):
                pixels = chequered_body((class_index, i // 2), i)
                Image.fromarray(pixels).save(root / class_name / f"slice {i + 1}.png")
        return root

    return make


@pytest.fixture
def misname() -> Callable[[Path], None]:
    """Puts a byte that is no UTF-8 before a file's name, as archives from old systems have them."""

    def rename(path: Path) -> None:
        try:
            os.rename(path, os.fsencode(path.parent) + b"/\xff" + os.fsencode(path.name))
        except OSError:
            pytest.skip("a disk that takes names in UTF-8 alone")

    return rename


@pytest.fixture
def make_covidx(tmp_path: Path, grey_slices: list[np.ndarray]) -> Callable[..., Path]:
    """Writes a COVIDx folder: `patients` patients a class, two slices each, on a list each."""

    def make(patients: int = 4, lists: tuple[str, ...] = ("train", "val", "test")) -> Path:
        root = tmp_path / "covidx"
        (root / "3A_images").mkdir(parents=True)
        lines: dict[str, list[str]] = {name: [] for name in lists}
        ids = []
        for class_index in range(3):
            for patient in range(patients):
                ids.append(f"P{class_index}_{patient}")
                for number in range(2):
                    name = f"P{class_index}_{patient}_77_{number:04d}.png"
                    noise = np.random.default_rng((class_index, patient)).integers(0, 9, (96, 96))
                    pixels = np.clip(grey_slices[number] + noise, 0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(root / "3A_images" / name)
                    chosen = lists[patient % len(lists)]
                    lines[chosen].append(f"{name} {class_index} 4 10 92 84")
        for name in lists:
            (root / f"{name}_COVIDx_CT-3A.txt").write_text("\n".join(lines[name]) + "\n")
        rows = "".join(f"{patient},src\n" for patient in ids)
        (root / "metadata.csv").write_text("patient id,source\n" + rows)
        return root

    return make


@pytest.fixture(scope="session")
def hounsfield_slices() -> list[np.ndarray]:
    """Four phantom slices: float32 [96, 96], HU."""
    return [render_slice(PhantomConfig(), "cancer", i, 0, 96) for i in range(4)]


@pytest.fixture
def make_dicom(tmp_path: Path, hounsfield_slices, monkeypatch) -> Callable[[], Path]:
    """Writes four patients of two classes, three slices each, and ``labels.csv``."""

    def make() -> Path:
        monkeypatch.setenv("GEMIX_PATIENT_SALT", "0123456789abcdef")
        root = tmp_path / "dicom"
        root.mkdir()
        (root / "labels.csv").write_text("patient,class\n0,a\n1,b\n2,a\n3,b\n")
        for patient, pixels in enumerate(hounsfield_slices):
            for number in range(3):
                _write_dicom(root / f"{patient}-{number}", pixels + number, patient, number)
        return root

    return make


def _write_dicom(path: Path, hounsfield: np.ndarray, patient: int, number: int) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = f"1.2.{patient}.{number}", f"1.2.{patient}"
    dataset.Modality, dataset.PatientID = "CT", str(patient)
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [0, 0, 5 * number]
    dataset.Rows, dataset.Columns = hounsfield.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.PixelData = hounsfield.astype("<i2").tobytes()
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture
def make_nifti(tmp_path: Path, hounsfield_slices) -> Callable[[], Path]:
    """Writes two classes of two volumes, three slices each."""

    def make() -> Path:
        root = tmp_path / "nifti"
        for index, pixels in enumerate(hounsfield_slices):
            values = np.stack([pixels.T + number for number in range(3)], axis=2)
            folder = root / "ab"[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            image = nibabel.Nifti1Image(values.astype(np.int16), np.diag([-1, -1, 5, 1]))
            nibabel.save(image, folder / f"{index}.nii.gz")
        return root

    return make


@pytest.fixture
def make_medmnist(tmp_path: Path, grey_slices) -> Callable[[], Path]:
    """Writes one ``.npz`` of two classes, four images a split."""

    def make() -> Path:
        arrays = {}
        for split, first in (("train", 0), ("val", 4), ("test", 8)):
            arrays[f"{split}_images"] = np.stack(grey_slices[first : first + 4])
            arrays[f"{split}_labels"] = np.array([[0], [1], [0], [1]])
        np.savez(tmp_path / "chest.npz", **arrays)
        return tmp_path / "chest.npz"

    return make
