from __future__ import annotations

import json
import logging
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
)

from gemix.data.config import DataConfig
from gemix.data.prepare import prepare_here
from gemix.data.scan import BadImage
from gemix.data.sources.dicom import DicomSource
from gemix.errors import DataError
from gemix.storage import Store

SALT = "0123456789abcdef0123456789abcdef"
CANARY = "XYZZY"
CANARY_UID = "1.2.826.0.1.777888999"
SUPINE = [1, 0, 0, 0, 1, 0]
CORONAL = [1, 0, 0, 0, 0, -1]


@pytest.fixture(autouse=True)
def salt(monkeypatch):
    monkeypatch.setenv("GEMIX_PATIENT_SALT", SALT)


def body(mark: int = 0, side: int = 48) -> np.ndarray:
    """Stored values of an ellipse in air, with a mark in the patient's front right corner."""
    y, x = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    stored = np.where((x / 0.8) ** 2 + (y / 0.6) ** 2 < 1, 1064, 24).astype(np.uint16)
    stored[side // 2 - 8 : side // 2 - 4, side // 2 - 8 : side // 2 - 2] = 300 + mark
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
        if syntax == JPEGLosslessSV1:
            dataset.PixelData = pydicom.encaps.encapsulate([b"no such thing "])
    path.parent.mkdir(parents=True, exist_ok=True)
    implicit = syntax == ImplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True, implicit_vr=implicit, little_endian=True)
    return path


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., DicomSource]:
    """An archive of patients named in full, some slices each, and its label file."""

    def build(patients: int = 3, slices: int = 4) -> DicomSource:
        root = tmp_path / "archive"
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

    return build


def load(path: Path, stored: np.ndarray | None = None, **changes) -> np.ndarray:
    """Loads one slice by way of a listing of it and a slice of another class."""
    write(path / "a", stored, PatientID="A", **changes)
    write(path / "b", PatientID="B")
    (path / "labels.csv").write_text("patient,class\nA,a\nB,b\n")
    source = DicomSource(str(path), "labels.csv")
    scan = source.load(source.list().items[0])
    assert scan.is_hounsfield
    return scan.pixels


def assert_no_canary(text: str) -> None:
    for word in (CANARY, CANARY_UID, "19511231", "20190203"):
        assert word.casefold() not in text.casefold()


def test_nothing_of_headers_or_paths_is_written(make, tmp_path, capfd, caplog):
    source = make()
    root = Path(source.store.url)
    write(root / f"{CANARY} bad", PatientID=f"{CANARY}-0", InstanceNumber=70, RescaleSlope=None)
    write(root / f"{CANARY} scout", InstanceNumber=71, ImageType=["ORIGINAL", "LOCALIZER"])
    write(root / f"{CANARY} other", PatientID=f"{CANARY}-unknown", InstanceNumber=72)
    (root / f"{CANARY}.txt").write_text(CANARY)
    config = DataConfig(source="folder", path=str(root), resolution=32, max_bad_fraction=0.1)
    store = Store(tmp_path / "prepared")
    with caplog.at_level(logging.DEBUG):
        manifest = prepare_here(source, config, store)
    written = store.list(recursive=True)
    assert {"manifest.json", "quarantine.json", "contact_sheet.png"} < set(written)
    shards = [name for name in written if name.endswith(".parquet")]
    assert len(shards) >= 3
    for name in written:
        assert_no_canary(name)
        assert_no_canary(store.read_bytes(name).decode("latin-1"))
    for name in shards:
        table = pq.read_table(Path(store.url) / name)
        assert_no_canary(str(table.schema.metadata))
        for column in table.column_names:
            for value in table[column].to_pylist():
                as_bytes = value if isinstance(value, bytes) else str(value).encode()
                assert_no_canary(as_bytes.decode("latin-1"))
        assert set(table["patient"].to_pylist()) <= {item.group for item in source.list().items}
    assert len(json.loads(store.read_bytes("quarantine.json"))) == 1
    assert manifest.images() == 24
    assert_no_canary(" ".join(manifest.origin["notes"]))
    assert_no_canary("".join(capfd.readouterr()) + caplog.text)


def test_errors_name_no_patient(make, tmp_path):
    source = make(patients=1, slices=1)
    labels = Path(source.store.url) / "labels.csv"
    labels.write_text("patient,class\nunknown,a\nJANE,b\n")
    with pytest.raises(DataError, match=r"no labelled axial CT slice.*PatientID") as caught:
        source.list()
    assert_no_canary(str(caught.value))
    assert "JANE" not in str(caught.value)
    labels.write_text(f"patient,class\n{CANARY}-0,a\nJANE,b\n")
    with pytest.raises(DataError, match="slices of class 'a' alone") as caught:
        source.list()
    assert_no_canary(str(caught.value))


def test_warnings_and_log_lines_of_pydicom_are_silent(make, tmp_path, capfd, caplog):
    source = make(patients=1, slices=1)
    path = Path(source.store.url) / f"{CANARY}^Doe 0" / f"{CANARY}0"
    bad_uid = f"{CANARY}_no_uid"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(path, PatientID=f"{CANARY}-0", StudyInstanceUID=bad_uid, SeriesInstanceUID=bad_uid)
    caplog.clear()
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pydicom.dcmread(path).SeriesInstanceUID  # noqa: B018
        assert CANARY in str(caught[0].message)
        caught.clear()
        caplog.clear()
        items = source.list().items
        source.load(items[0])
    assert (len(items), len(caught), caplog.text) == (2, 0, "")
    assert capfd.readouterr() == ("", "")


def test_slices_run_from_foot_to_head_whatever_the_files_are_called(make):
    listing = make().list()
    assert listing.classes == ("cancer", "normal")
    assert [item.key[-10:] for item in listing.items[:4]] == [f"slice-000{i}" for i in range(1, 5)]
    assert [item.location[-1] for item in listing.items] == list("3210") * 6
    assert len({item.key for item in listing.items}) == listing.listed == 24
    assert len({item.group for item in listing.items}) == 6
    assert len({item.key.split("/")[0] for item in listing.items}) == 6
    assert [item.class_index for item in listing.items] == [0] * 12 + [1] * 12


@pytest.mark.parametrize("change", ["feet first", "no position"])
def test_slice_order_without_ascending_positions(tmp_path, change):
    for number in (1, 2, 3):
        changes = {
            # rows to the right, so that the normal points to the feet
            "feet first": {"ImageOrientationPatient": [-1, 0, 0, 0, 1, 0]},
            "no position": {"ImagePositionPatient": None if number == 2 else [0, 0, -number]},
        }[change]
        write(tmp_path / f"{9 - number}", PatientID="A", InstanceNumber=number, **changes)
    write(tmp_path / "b", PatientID="B")
    (tmp_path / "labels.csv").write_text("patient,class\nA,a\nB,b\n")
    listing = DicomSource(str(tmp_path), "labels.csv").list()
    assert [item.location for item in listing.items] == ["8", "7", "6", "b"]


def test_what_is_no_labelled_axial_ct_slice_is_counted(make):
    source = make(patients=1, slices=2)
    root, whose = Path(source.store.url), {"PatientID": f"{CANARY}-0"}
    write(root / "scout", **whose, InstanceNumber=11, ImageType=["DERIVED", "X", "LOCALIZER"])
    write(root / "mr", **whose, InstanceNumber=12, Modality="MR")
    write(root / "coronal", **whose, InstanceNumber=13, ImageOrientationPatient=CORONAL)
    write(root / "nowhere", **whose, InstanceNumber=14, ImageOrientationPatient=None)
    write(root / "copy", **whose, InstanceNumber=1)
    write(root / "stranger", PatientID="stranger", InstanceNumber=15)
    write(root / "burned", **whose, InstanceNumber=16, BurnedInAnnotation="YES")
    (root / "notes.txt").write_text("x")
    (root / "labels.csv").write_text((root / "labels.csv").read_text() + "\nJANE,normal\n")
    listing = source.list()
    assert len(listing.items) == listing.listed == 5
    notes = "\n".join(listing.notes)
    for wanted in (
        "found 5 axial CT slices, labelled by patient",
        "left out 1 localizers",
        "left out 1 DICOM files that are not CT",
        "left out 1 CT slices that are not axial",
        "left out 1 CT files without a valid ImageOrientationPatient",
        "left out 1 copies of a slice",
        "left out 1 files that are not DICOM",
        "left out 1 slices whose patient (1 of them) has no label",
        "1 keys in the column patient",
        "1 slices may carry burned-in text",
    ):
        assert wanted in notes
    assert "stranger" not in notes


def test_tilted_slices_are_axial_up_to_25_degrees(tmp_path):
    write(tmp_path / "b", PatientID="B")
    for number, degrees in enumerate((-24, 24, 26), start=1):
        tilt = np.radians(degrees)
        axes = [1, 0, 0, 0, round(float(np.cos(tilt)), 6), round(float(np.sin(tilt)), 6)]
        name = str(tmp_path / f"a{number}")
        write(Path(name), PatientID="A", InstanceNumber=number, ImageOrientationPatient=axes)
    (tmp_path / "labels.csv").write_text("patient,class\nA,a\nB,b\n")
    listing = DicomSource(str(tmp_path), "labels.csv").list()
    assert {item.location for item in listing.items} == {"a1", "a2", "b"}


def test_series_labels_and_splits(make, tmp_path):
    source = make(patients=1)
    series = [f"{CANARY_UID}.{sum(f'{CANARY}-{index}'.encode())}" for index in (0, 1)]
    labels = tmp_path / "elsewhere.csv"
    labels.write_text(f"series,class,split\n{series[0]},a,test\n{series[1]},b,\n")
    listing = DicomSource(source.store.url, str(labels)).list()
    assert [item.split for item in listing.items] == ["test"] * 4 + [None] * 4
    assert [item.key for item in source.list().items] == [item.key for item in listing.items]


def test_a_study_stands_for_a_patient_without_id(tmp_path):
    for number in (1, 2):
        own = f"{CANARY_UID}.4.{number}"
        write(tmp_path / f"a{number}", PatientID="", SeriesInstanceUID=own, InstanceNumber=number)
    write(tmp_path / "b", PatientID="B")
    other = f"{CANARY_UID}.{ord('B')}"
    lines = f"series,class\n{CANARY_UID}.4.1,a\n{CANARY_UID}.4.2,a\n{other},b\n"
    (tmp_path / "labels.csv").write_text(lines)
    listing = DicomSource(str(tmp_path), "labels.csv").list()
    assert len({item.key.split("/")[0] for item in listing.items}) == 3
    assert len({item.group for item in listing.items}) == 2
    assert "2 slices have no PatientID: their study stands for the patient" in listing.notes


def test_an_archive_in_a_bucket_is_listed_and_loaded_like_one_on_a_disk(make, bucket):
    local = make(patients=1, slices=2)
    store = Store(f"{bucket}/archive")
    for name in local.store.list(recursive=True):
        store.write_bytes(name, local.store.read_bytes(name))
    remote = DicomSource(store.url, f"{store.url}/labels.csv")
    listing = remote.list()
    assert listing == local.list() == DicomSource(store.url, "labels.csv").list()
    for item in listing.items:
        np.testing.assert_array_equal(remote.load(item).pixels, local.load(item).pixels)


def test_the_same_secret_gives_the_same_keys_and_another_others(make, monkeypatch):
    source = make()
    first = source.list()
    again = pickle.loads(pickle.dumps(source))
    assert SALT.encode() not in pickle.dumps(source)
    assert again.list() == first
    monkeypatch.setenv("GEMIX_PATIENT_SALT", SALT[::-1])
    other = source.list()
    for name in ("key", "group"):
        before, after = ({getattr(i, name) for i in listing.items} for listing in (first, other))
        assert len(before) == len(after) and not before & after


@pytest.mark.parametrize(("value", "state"), [(None, "not set"), ("x" * 15, "shorter than 16")])
def test_a_secret_is_needed(make, monkeypatch, value, state):
    monkeypatch.delenv("GEMIX_PATIENT_SALT")
    if value:
        monkeypatch.setenv("GEMIX_PATIENT_SALT", value)
    with pytest.raises(DataError, match=rf"{state}.*export GEMIX_PATIENT_SALT=\$\(openssl"):
        make(patients=1, slices=1).list()


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
    with pytest.raises(BadImage, match=reason) as caught:
        load(tmp_path, **changes)
    assert_no_canary(str(caught.value))
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_cut_short_is_a_bad_image(make, share):
    source = make(patients=1, slices=1)
    item = source.list().items[0]
    path = Path(source.store.url) / item.location
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(BadImage, match="truncated or damaged"):
        source.load(item)
    path.unlink()
    with pytest.raises(BadImage, match="gone or cannot be read") as caught:
        source.load(item)
    assert_no_canary(str(caught.value))
