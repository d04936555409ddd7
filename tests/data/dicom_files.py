"""DICOM archives full of names, made for the occasion."""

from __future__ import annotations

import base64
import copy
import functools
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
from PIL import Image
from pydicom.datadict import DicomDictionary, RepeatersDictionary
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.tag import Tag
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)
from pydicom.valuerep import STR_VR

from gemix.data.sources.dicom.source import DicomSource

SALT = "0123456789abcdef0123456789abcdef"
CANARY = "XYZZY"
CANARY_UID = "1.2.826.0.1.777888999"
CANARY_VALUES = {
    "AS": "907Y",
    "DA": "19070305",
    "DS": "190703.0523",
    "DT": "19070305052317.1907",
    "IS": "1907030523",
    "TM": "052317.190703",
}
"""What texts hold whose form is fixed; all others hold `CANARY` and the number of their tag."""

PLANTED, PLANTED_BAD = 12, 14

SUPINE = [1, 0, 0, 0, 1, 0]
CORONAL = [1, 0, 0, 0, 0, -1]


def body(mark: int = 0, side: int = 48) -> np.ndarray:
    """Stored values of an ellipse in air, with a mark in the patient's front right corner."""
    y, x = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    stored = np.where((x / 0.8) ** 2 + (y / 0.6) ** 2 < 1, 1064, 24).astype(np.uint16)
    stored[side // 2 - 8 : side // 2 - 4, side // 2 - 8 : side // 2 - 2] = 300 + 15 * mark
    return stored


def write(path: Path, stored: np.ndarray | None = None, **changes) -> Path:
    """A CT slice full of names; a change to None removes the tag.

    Two are no tags: `syntax`, and `is_planted` for a canary wherever DICOM has room for one.
    """
    stored = body() if stored is None else stored
    syntax = changes.pop("syntax", ExplicitVRLittleEndian)
    is_planted = changes.pop("is_planted", False)
    patient = changes.get("PatientID", "P1")
    series = f"{CANARY_UID}.{sum(str(patient).encode())}"
    number = changes.get("InstanceNumber") or 1
    number = 1 if isinstance(number, bytes) else number
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
        "RescaleType": "HU",
        "PixelSpacing": [0.7, 0.7],
    }
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = values["SOPInstanceUID"]
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.add_new("PixelData", "OW", stored.tobytes())
    for name, value in (values | changes).items():
        if value is None:
            if name in dataset:
                del dataset[name]
        elif isinstance(value, bytes):  # as it is, though no value of the tag's VR
            vr = pydicom.datadict.dictionary_VR(name)
            dataset[name] = RawDataElement(Tag(name), vr, len(value), value, 0, False, True)
        else:
            setattr(dataset, name, value)
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    elif syntax != ExplicitVRLittleEndian:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax in (JPEGLosslessSV1, JPEG2000Lossless):
            dataset.add_new("PixelData", "OB", pydicom.encaps.encapsulate([b"no such thing "]))
            dataset["PixelData"].is_undefined_length = True
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_planted:
        removed = {Tag(name) for name, value in changes.items() if value is None}
        path.write_bytes(_with_canaries(dataset, removed))
        return path
    implicit = syntax == ImplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True, implicit_vr=implicit, little_endian=True)
    return path


def _with_canaries(dataset: Dataset, removed: set[int]) -> bytes:
    """The file with canaries in its preamble and in all other tags but those removed."""
    planted, planted_meta = _planted()
    elements = {**planted, **_encoded(dataset)}
    meta = copy.deepcopy(planted_meta)
    meta.update(dataset.file_meta)
    file = DicomBytesIO()
    write_file_meta_info(file, meta)
    rest = b"".join(elements[tag] for tag in sorted(elements.keys() - removed))
    return CANARY.encode().ljust(128, b"\0") + b"DICM" + file.getvalue() + rest


@functools.cache
def _planted() -> tuple[dict[int, bytes], FileMetaDataset]:
    """A canary in every tag that holds text, in an item of every sequence and in private tags.

    Elements are in bytes, since pydicom takes a tenth of a second a file to write so many.
    """
    # curves and overlays among them, of which there may be many: 60xx0022
    known = {int(mask.replace("x", "0"), 16): entry for mask, entry in RepeatersDictionary.items()}
    known |= DicomDictionary
    meta, item, dataset = FileMetaDataset(), Dataset(), Dataset()
    for tag, (vr, *_, keyword) in known.items():
        value = _canary(tag, vr)
        # commands are in no file; frames are counted for decoding
        if value and tag >> 16 and keyword not in ("FileMetaInformationVersion", "NumberOfFrames"):
            (meta if tag >> 16 == 2 else item).add_new(tag, vr, value)
    dataset.update(item)
    del item.SpecificCharacterSet  # pydicom would say so of every text that it writes
    for tag, (vr, _, _, _, keyword) in known.items():
        if vr == "SQ":
            inner = Dataset()
            inner.PatientComments = f"{CANARY} {keyword}"
            dataset.add_new(tag, "SQ", [inner])
    deep = Dataset()
    deep.RequestAttributesSequence = [item]
    dataset.RequestAttributesSequence = [deep]
    dataset.OtherPatientIDs = [CANARY, f"{CANARY} 2"]
    block = dataset.private_block(0x0009, f"{CANARY} scanner", create=True)
    for number, vr in enumerate(("LO", "PN", "UT", "UN", "OB")):
        word = f"{CANARY} private {vr}"
        block.add_new(number, vr, word.encode() if vr in ("UN", "OB") else word)
    block.add_new(0x10, "SQ", [inner])
    return _encoded(dataset), meta


def _encoded(dataset: Dataset) -> dict[int, bytes]:
    """Each element as Explicit VR Little Endian has it, by tag."""
    elements = {}
    for tag in map(int, dataset.keys()):
        file = DicomBytesIO()
        file.is_implicit_VR, file.is_little_endian = False, True
        write_data_element(file, dataset.get_item(tag), "iso8859")
        elements[tag] = file.getvalue()
    return elements


def _canary(tag: int, vr: str) -> str | bytes | None:
    """What the tag gives away, None for one that holds neither text nor bytes of any meaning."""
    word = f"{CANARY}{tag:08X}"
    if vr in ("OB", "UN"):
        return word.encode()
    other = {"UI": f"{CANARY_UID}.{tag}", "UR": f"http://{word}"} | CANARY_VALUES
    return other.get(vr, word) if vr in STR_VR else None


def write_archive(root: Path, patients: int = 3, slices: int = 4, **changes) -> DicomSource:
    """Twice so many patients, named in full, of two classes, and their label file."""
    lines = ["patient,class"]
    for index in range(2 * patients):
        patient = f"{CANARY}-{index}"
        lines.append(f"{patient},{'normal' if index % 2 else 'cancer'}")
        for number in range(1, slices + 1):
            # the last slice comes first by file name
            path = root / f"{CANARY}^Doe {index}" / f"{CANARY}{slices - number}"
            stored = body(10 * index + number)
            write(path, stored, PatientID=patient, InstanceNumber=number, **changes)
    (root / "labels.csv").write_text("\n".join(lines))
    return DicomSource(str(root), "labels.csv")


def write_planted_archive(root: Path) -> DicomSource:
    """`PLANTED` slices of six patients with canaries all over, `PLANTED_BAD` files that are set
    aside, and some that are neither.
    """
    source = write_archive(root, slices=PLANTED // 6, is_planted=True)
    lines = (root / "labels.csv").read_text().splitlines()
    named = [f"{line},{CANARY}^Doe" for line in lines[1:]]
    (root / "labels.csv").write_text("\n".join([f"{lines[0]},name", *named]))
    garbage = f"{CANARY}!".encode()
    for number, changes in enumerate(
        (
            {"RescaleSlope": None},
            {"RescaleSlope": garbage},
            {"RescaleType": CANARY},
            {"PixelSpacing": garbage},
            {"NumberOfFrames": 2},
            {"PhotometricInterpretation": CANARY},
            {"syntax": f"{CANARY_UID}.66"},
            {"syntax": JPEG2000Lossless},
            {"SeriesInstanceUID": None},
            {"InstanceNumber": garbage},
            {"ImageOrientationPatient": garbage},
        )
    ):
        whose = {"PatientID": f"{CANARY}-0", "InstanceNumber": 70 + number, "is_planted": True}
        write(root / f"{CANARY} bad {number}", **(whose | changes))
    whole = write(root / "whole", PatientID=f"{CANARY}-1", InstanceNumber=80, is_planted=True)
    data = whole.read_bytes()
    whole.unlink()
    (root / f"{CANARY} half").write_bytes(data[:-1000])
    (root / f"{CANARY} head").write_bytes(data[: data.index(b"\x10\0\x10\0PN") + 12])
    (root / f"{CANARY}.dcm").write_text(CANARY)
    (root / f"{CANARY}.txt").write_text(CANARY)
    odd = {"PatientID": f"{CANARY}-unknown", "is_planted": True}
    write(root / f"{CANARY} other", **odd)
    write(root / f"{CANARY} scout", InstanceNumber=2, ImageType=[CANARY, "LOCALIZER"], **odd)
    write(root / f"{CANARY} mr", InstanceNumber=3, Modality="MR", **odd)
    return source


def assert_no_canary(found: str | bytes) -> None:
    """None in any case, in UTF-16, hexadecimal or base64; dates also as ISO has them."""
    data = found.encode("utf-8", "replace") if isinstance(found, str) else found
    data = data.replace(b"\0", b"")  # what UTF-16 puts between letters
    for text, forms in ((data.lower(), _PLAIN), (data, _BASE64)):
        for form in forms:
            at = text.find(form)
            assert at < 0, f"{form!r} in {data[max(at - 80, 0) : at + 80]!r}"


def assert_no_canary_below(folder: Path) -> set[str]:
    """None in the files' names, bytes, Parquet columns or what pictures say beside their pixels.

    Returns:
        The names of the files, relative to the folder.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        assert_no_canary(str(path.relative_to(folder)))
        assert_no_canary(path.read_bytes())
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            assert_no_canary(str(table.schema.metadata))
            for column in table.columns:
                for value in column.to_pylist():
                    assert_no_canary(value if isinstance(value, bytes) else str(value))
        elif path.suffix == ".png":
            with Image.open(path) as image:
                assert_no_canary(str(image.info))
    return {str(path.relative_to(folder)) for path in files}


def _base64_forms(word: str) -> list[bytes]:
    """What base64 makes of the word, at each of three places, less the ends that vary."""
    ends = [(-(-8 * at // 6), 8 * (at + len(word)) // 6) for at in range(3)]
    return [
        base64.b64encode(b" " * at + word.encode() + b"  ")[start:stop]
        for at, (start, stop) in enumerate(ends)
    ]


_ENCODED = (CANARY, CANARY_UID, CANARY_VALUES["DA"])
_BASE64 = [form for word in _ENCODED for form in _base64_forms(word)]
_PLAIN = [
    *(CANARY, CANARY_UID, SALT, *CANARY_VALUES.values()),
    *("19511231", "20190203", "1951-12-31", "2019-02-03", "1907-03-05"),
    *(word.encode().hex() for word in _ENCODED),
]
_PLAIN = [word.lower().encode() for word in _PLAIN]
