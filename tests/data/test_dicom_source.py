from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from gemix.core.errors import DataError
from gemix.data.scan import InvalidImageError
from gemix.data.sources.dicom.source import DicomSource
from gemix.io.storage import Store
from tests.data.dicom_files import (
    CANARY,
    CANARY_UID,
    CORONAL,
    SALT,
    body,
    write,
    write_archive,
)
from tests.data.listings import undated


@pytest.fixture(autouse=True)
def salt(monkeypatch):
    monkeypatch.setenv("GEMIX_PATIENT_SALT", SALT)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., DicomSource]:
    """Writes an archive of patients named in full, some slices each, and its label file."""
    return functools.partial(write_archive, tmp_path / "archive")


def set_class(path: Path, kind: str) -> None:
    """Says in the file's own header that it is of another kind."""
    dataset = pydicom.dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind
    dataset.save_as(path)


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
    (root / "copy").write_bytes((root / f"{CANARY}^Doe 0" / f"{CANARY}1").read_bytes())
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


def test_a_copy_without_a_label_takes_no_slice_away(make):
    source = make(patients=1, slices=2)
    before = source.list()
    path = Path(source.store.url) / before.items[0].location
    same = pydicom.dcmread(path).SOPInstanceUID
    write(Path(source.store.url) / "0", PatientID="stranger", SOPInstanceUID=same)
    listing = source.list()
    assert listing.items == before.items
    assert not any("copies" in note for note in listing.notes)
    assert any("left out 1 slices whose patient (1 of them)" in note for note in listing.notes)


def test_files_that_should_be_dicom_but_are_damaged_are_set_aside(make, misname):
    source = make(patients=1, slices=2)
    root = Path(source.store.url)
    data = write(root / "bad 0", PatientID=f"{CANARY}-0", InstanceNumber=7).read_bytes()
    # TransferSyntaxUID, StudyDate, PatientName, StudyInstanceUID, ImagePositionPatient
    for number, tag in enumerate(("02001000", "08002000", "10001000", "20000d00", "20003200")):
        (root / f"bad {number}").write_bytes(data[: data.index(bytes.fromhex(tag))])
    (root / "empty").touch()
    (root / "page.DCM").write_bytes(b"<html>not found</html>")
    (root / "gone").symlink_to(root / "nowhere")
    write(root / "no uid", PatientID=f"{CANARY}-0", SeriesInstanceUID=None)
    misname(write(root / "misnamed", PatientID=f"{CANARY}-0", InstanceNumber=8))
    index = write(root / "DICOMDIR", Modality=None, SeriesInstanceUID=None)
    set_class(index, MediaStorageDirectoryStorage)
    (root / "notes.txt").write_text("x")
    listing = source.list()
    reasons = sorted(bad.reason.partition(";")[0] for bad in listing.unusable)
    assert len(listing.items) == 4 and len(reasons) == 10 and listing.listed == 14
    for wanted, count in (
        ("empty file", 1), ("ends in .dcm", 1), ("cannot be read", 1), ("its name is no UTF-8", 1),
        ("DICOM header without", 5), ("truncated DICOM header", 1),
    ):  # fmt: skip
        assert sum(reason.startswith(wanted) for reason in reasons) == count, (wanted, reasons)
    assert "left out 1 files that are not DICOM" in listing.notes
    assert "left out 1 DICOM files that are not CT" in listing.notes
    assert "set aside 1 files: empty file (0 bytes)" in listing.notes
    assert all(re.fullmatch(r"file-[0-9a-f]{12}", bad.source) for bad in listing.unusable)
    assert len({bad.source for bad in listing.unusable}) == 10
    assert source.list() == listing


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
    assert listing == DicomSource(store.url, "labels.csv").list()
    assert undated(listing) == undated(local.list())
    for item in listing.items:
        np.testing.assert_array_equal(remote.load(item).pixels, local.load(item).pixels)


@pytest.mark.parametrize("length", [*range(64600, 65600, 50), 300_000])
def test_a_header_longer_than_what_is_read_first_is_read_whole(tmp_path, length):
    for name in ("A", "B"):
        path = write(tmp_path / name, PatientID=name)
        data = path.read_bytes()
        # between the modality and the patient, where a scanner may keep anything
        at = data.index(b"\x10\0\x10\0PN")
        private = b"\x09\0\x01\x10OB\0\0" + length.to_bytes(4, "little") + bytes(length)
        path.write_bytes(data[:at] + private + data[at:])
    (tmp_path / "labels.csv").write_text("patient,class\nA,a\nB,b\n")
    listing = DicomSource(str(tmp_path), "labels.csv").list()
    assert [item.location for item in listing.items] == ["A", "B"]
    assert len(listing.notes) == 1


def test_a_listing_does_without_pixels_that_cannot_be_read(make):
    source = make(patients=1, slices=2)
    listing = source.list()
    for item in listing.items:
        path = Path(source.store.url) / item.location
        data = path.read_bytes()
        path.write_bytes(data[: data.index(b"\xe0\x7f\x10\0")])
    assert undated(source.list()) == undated(listing)


def test_a_deflated_file_is_read_and_one_that_inflates_beyond_measure_is_not(tmp_path, monkeypatch):
    for name in ("A", "B"):
        write(tmp_path / name, body(), syntax=DeflatedExplicitVRLittleEndian, PatientID=name)
    (tmp_path / "labels.csv").write_text("patient,class\nA,a\nB,b\n")
    source = DicomSource(str(tmp_path), "labels.csv")
    item = source.list().items[0]
    np.testing.assert_array_equal(source.load(item).pixels, body() - np.float32(1024))
    monkeypatch.setattr("gemix.data.sources.dicom.header.MAX_BYTES", 2000)
    with pytest.raises(DataError, match="set aside 2 files: damaged DICOM header"):
        source.list()
    with pytest.raises(InvalidImageError, match="truncated or damaged"):
        source.load(item)
