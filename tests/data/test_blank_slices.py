"""Blank slices of volumes are left out and counted, blank image files are set aside."""

from __future__ import annotations

import numpy as np
from PIL import Image

from gemix.data.config import DataConfig
from gemix.data.phantom import render_slice
from gemix.data.prepare import prepare_serial
from gemix.data.sources import open_source
from gemix.io.storage import Store
from tests.data.dicom_files import SALT, write
from tests.data.nifti_files import save

CLASSES = ("normal", "cancer")
PATIENTS, SLICES = 4, 6


def padded_volume(label: str, patient: int) -> np.ndarray:
    """HU [SLICES, 64, 64]; the first and last slice hold padding alone."""
    phantom = DataConfig().phantom
    volume = [render_slice(phantom, label, patient, number, 64) for number in range(SLICES)]
    volume[0] = volume[-1] = np.full((64, 64), -1024)
    return np.rint(np.clip(volume, -1024, None)).astype(np.int16)


def prepared(source: str, root, **settings):
    config = DataConfig(source=source, path=str(root / "in"), resolution=32, **settings)
    return prepare_serial(open_source(config), config, Store(str(root / "out")))


def test_a_blank_image_file_is_set_aside_as_blank(tmp_path, make_folder):
    root = make_folder(a=20, b=20)
    black = np.zeros((64, 64), np.uint8)
    Image.fromarray(black).save(root / "a" / "black.png")
    black[30, 30] = 1
    Image.fromarray(black).save(root / "b" / "one pixel.png")
    config = DataConfig(source="folder", path=str(root), resolution=32)
    manifest = prepare_serial(open_source(config), config, Store(str(tmp_path / "out")))
    reasons = {one["source"]: one["reason"] for one in manifest.origin["reasons"]}
    assert reasons.keys() == {"a/black.png", "b/one pixel.png"}
    assert all(reason.startswith("blank: ") for reason in reasons.values())


def test_blank_slices_are_counted_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("GEMIX_PATIENT_SALT", SALT)
    lines = ["patient,class"]
    for label in CLASSES:
        for patient in range(PATIENTS):
            name, volume = f"{label}{patient}", padded_volume(label, patient)
            lines.append(f"{name},{label}")
            save(tmp_path / "nifti" / "in" / label / f"{name}.nii", volume)
            for number, hounsfield in enumerate(volume, start=1):
                stored = (hounsfield + 1024).astype(np.uint16)
                where = tmp_path / "dicom" / "in" / name / f"{number}"
                write(where, stored, PatientID=name, InstanceNumber=number)
    (tmp_path / "dicom" / "in" / "labels.csv").write_text("\n".join(lines))
    for source, settings in (("dicom", {"labels": "labels.csv"}), ("nifti", {})):
        manifest = prepared(source, tmp_path / source, **settings)
        assert manifest.images() == len(CLASSES) * PATIENTS * (SLICES - 2)
        assert manifest.origin["left_out"] == {"blank": len(CLASSES) * PATIENTS * 2}
        assert manifest.origin["quarantined"] == 0
