"""Files whose first bytes, not names, tell what they are; and encodings that cannot be read."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
    LegacyConvertedEnhancedCTImageStorage,
)

from gemix.core.errors import DataError
from gemix.data.scan import InvalidImageError
from gemix.data.sources.dicom.source import DicomSource
from tests.data.dicom_files import CANARY, SALT, assert_no_canary, body, write


@pytest.fixture(autouse=True)
def salt(monkeypatch):
    monkeypatch.setenv("GEMIX_PATIENT_SALT", SALT)


def open_pair(root: Path) -> DicomSource:
    """An archive of the file that a test wrote for patient A and one of patient B."""
    write(root / "b", PatientID="B")
    (root / "labels.csv").write_text("patient,class\nA,a\nB,b\n")
    return DicomSource(str(root), "labels.csv")


def load_first(source: DicomSource) -> np.ndarray:
    listing = source.list()
    assert len(listing.items) == 2 and len(listing.notes) == 1
    return source.load(listing.items[0]).pixels


def without_meta(path: Path, start: int = 0) -> bytes:
    """The file without its preamble and, unless `start` keeps it, meta information."""
    data = path.read_bytes()
    return data[start or 144 + int.from_bytes(data[140:144], "little") :]


@pytest.mark.parametrize("name", ["a", "a.dcm", "a.IMA"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_bare_data_set_is_read(tmp_path, name, syntax):
    path = write(tmp_path / name, PatientID="A", syntax=syntax)
    path.write_bytes(without_meta(path))
    assert path.read_bytes()[:2] == b"\x08\0"
    np.testing.assert_array_equal(load_first(open_pair(tmp_path)), body() - np.float32(1024))


def test_meta_information_without_a_preamble_is_read(tmp_path):
    path = write(tmp_path / "a", PatientID="A")
    path.write_bytes(without_meta(path, start=132))
    np.testing.assert_array_equal(load_first(open_pair(tmp_path)), body() - np.float32(1024))


@pytest.mark.parametrize("name", ["a.dcm.gz", "a.dcm", "a"])
def test_a_packed_file_is_read_whatever_it_is_called(tmp_path, name):
    path = write(tmp_path / name, PatientID="A")
    path.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(load_first(open_pair(tmp_path)), body() - np.float32(1024))


def test_a_packed_file_with_a_long_header_is_read(tmp_path):
    path = write(tmp_path / "a.dcm.gz", PatientID="A")
    data = path.read_bytes()
    at = data.index(b"\x10\0\x10\0PN")
    noise = np.random.default_rng(0).bytes(200_000)
    private = b"\x09\0\x01\x10OB\0\0" + len(noise).to_bytes(4, "little") + noise
    path.write_bytes(gzip.compress(data[:at] + private + data[at:]))
    np.testing.assert_array_equal(load_first(open_pair(tmp_path)), body() - np.float32(1024))


def test_other_files_are_no_dicom(tmp_path):
    write(tmp_path / "a", PatientID="A")
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"some text, and more of it"))
    (tmp_path / "y.tar.gz").write_bytes(gzip.compress(bytes(600)))
    (tmp_path / "z").write_bytes(b"\x08\0 is a backspace, and this is a text")
    (tmp_path / "bad.dcm.gz").write_bytes(gzip.compress(b"<html>"))
    listing = open_pair(tmp_path).list()
    assert len(listing.items) == 2
    assert "left out 3 files that are not DICOM" in listing.notes
    assert [bad.reason for bad in listing.unusable] == [
        "ends in .dcm.gz but is not DICOM; copy it again"
    ]


def jpeg(path: Path) -> None:
    changes = {"BitsStored": 12, "HighBit": 11}
    write(path, PatientID="A", syntax=ExplicitVRLittleEndian, **changes)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = JPEGExtended12Bit
    dataset.add_new("PixelData", "OB", pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"]))
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)


def no_syntax(path: Path) -> None:
    data = write(path, PatientID="A").read_bytes()
    at = data.index(b"\x02\0\x10\0UI")
    end = at + 8 + int.from_bytes(data[at + 6 : at + 8], "little")
    path.write_bytes(data[:at] + data[end:])


def bare_and_compressed(path: Path) -> None:
    jpeg(path)
    path.write_bytes(without_meta(path))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (jpeg, r"12-bit JPEG .*decompress it.*dcmdjpeg"),
        (no_syntax, r"no TransferSyntaxUID.*\(0002,0010\)"),
        (bare_and_compressed, "compressed pixels in a file without File Meta Information"),
        (
            lambda path: write(path, PatientID="A", RescaleIntercept=[-1024, 0]),
            "RescaleIntercept has 2 values.*set the one",
        ),
        (
            lambda path: write(path, PatientID="A", RescaleSlope=[1, 1, 1]),
            "RescaleSlope has 3 values",
        ),
        (
            lambda path: write(path, np.stack([body(1), body(2)]), PatientID="A", NumberOfFrames=2),
            "2 frames in one file; split it into one slice a file",
        ),
    ],
)
def test_each_cause_has_its_own_remedy(tmp_path, make, reason):
    make(tmp_path / "a")
    source = open_pair(tmp_path)
    with pytest.raises(InvalidImageError, match=reason) as caught:
        source.load(source.list().items[0])
    assert "copy it again" not in str(caught.value)


@pytest.mark.parametrize("kind", [EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage])
def test_enhanced_ct_is_named(tmp_path, kind):
    write(tmp_path / "a", PatientID="A")
    stored = np.stack([body(number) for number in range(3)])
    write(
        tmp_path / "enhanced",
        stored,
        PatientID=CANARY,
        SOPClassUID=kind,
        NumberOfFrames=3,
        ImageOrientationPatient=None,
        ImagePositionPatient=None,
    )
    listing = open_pair(tmp_path).list()
    (bad,) = listing.unusable
    assert "set aside 1 files: Enhanced CT, a series in one file" in listing.notes
    for wanted in ("Enhanced CT", "CT Image Storage", "emf2sf", "data.source=nifti"):
        assert wanted in bad.reason
    assert_no_canary(bad.reason)


def test_the_error_of_an_archive_without_slices_names_causes_and_remedies(tmp_path):
    for name in ("a1", "a2"):
        write(tmp_path / name, PatientID="A", SOPClassUID=EnhancedCTImageStorage)
    with pytest.raises(DataError, match=r"set aside 2 files: Enhanced CT.*emf2sf"):
        open_pair(tmp_path).list()
