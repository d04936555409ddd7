"""DICOM archives full of names, made for the occasion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)

from gemix.data.sources.dicom import DicomSource

SALT = "0123456789abcdef0123456789abcdef"
CANARY = "XYZZY"
CANARY_UID = "1.2.826.0.1.777888999"
SUPINE = [1, 0, 0, 0, 1, 0]
CORONAL = [1, 0, 0, 0, 0, -1]


def body(mark: int = 0, side: int = 48) -> np.ndarray:
    """Stored values of an ellipse in air, with a mark in the patient's front right corner."""
    y, x = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    stored = np.where((x / 0.8) ** 2 + (y / 0.6) ** 2 < 1, 1064, 24).astype(np.uint16)
    stored[side // 2 - 8 : side // 2 - 4, side // 2 - 8 : side // 2 - 2] = 300 + 15 * mark
    return stored


def write(path: Path, stored: np.ndarray | None = None, **changes) -> Path:
    """A CT slice full of names; a change to None removes the tag, `syntax` is no tag."""
    stored = body() if stored is None else stored
    syntax = changes.pop("syntax", ExplicitVRLittleEndian)
    patient = changes.get("PatientID", "P1")
    series = f"{CANARY_UID}.{sum(str(patient).encode())}"
    number = changes.get("InstanceNumber") or 1
    values = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"{series}.1.{number}",
        "SeriesInstanceUID": series,
        "StudyInstanceUID": f"{series}.9",
        "FrameOfReferenceUID": f"{series}.8",
        "PatientID": patient,
        "PatientName": f"{CANARY}^Name",
        "PatientBirthDate": "19511231",
        "StudyDate": "20190203",
        "InstitutionName": f"{CANARY} hospital",
        "StudyDescription": f"{CANARY} study",
        "SeriesDescription": f"{CANARY} series",
        "ImageComments": f"{CANARY} comment",
        "PatientComments": f"{CANARY} comment",
        "AccessionNumber": CANARY,
        "ReferringPhysicianName": f"{CANARY}^Doctor",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "InstanceNumber": number,
        "ImagePositionPatient": [-100, -100, 5 * number],
        "ImageOrientationPatient": SUPINE,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[-2],
        "Columns": stored.shape[-1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
    }
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = values["SOPInstanceUID"]
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelData = stored.tobytes()
    for name, value in (values | changes).items():
        if value is None:
            if name in dataset:
                del dataset[name]
        else:
            setattr(dataset, name, value)
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    elif syntax != ExplicitVRLittleEndian:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax in (JPEGLosslessSV1, JPEG2000Lossless):
            dataset.PixelData = pydicom.encaps.encapsulate([b"no such thing "])
    path.parent.mkdir(parents=True, exist_ok=True)
    implicit = syntax == ImplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True, implicit_vr=implicit, little_endian=True)
    return path


def write_archive(root: Path, patients: int = 3, slices: int = 4) -> DicomSource:
    """Twice so many patients, named in full, of two classes, and their label file."""
    lines = ["patient,class"]
    for index in range(2 * patients):
        patient = f"{CANARY}-{index}"
        lines.append(f"{patient},{'normal' if index % 2 else 'cancer'}")
        for number in range(1, slices + 1):
            # the last slice comes first by file name
            path = root / f"{CANARY}^Doe {index}" / f"{CANARY}{slices - number}"
            write(path, body(10 * index + number), PatientID=patient, InstanceNumber=number)
    (root / "labels.csv").write_text("\n".join(lines))
    return DicomSource(str(root), "labels.csv")


def assert_no_canary(text: str) -> None:
    for word in (CANARY, CANARY_UID, "19511231", "20190203"):
        assert word.casefold() not in text.casefold()
