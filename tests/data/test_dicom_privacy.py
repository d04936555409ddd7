from __future__ import annotations

import base64
import dataclasses
import functools
import json
import logging
import os
import pickle
import re
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.datadict import DicomDictionary
from pydicom.uid import (
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)
from pydicom.valuerep import STR_VR

from gemix.core.errors import DataError, StoreAccessError, StoreError
from gemix.data.config import DataConfig
from gemix.data.prepare import prepare_serial
from gemix.data.scan import InvalidImageError
from gemix.data.sources.dicom.header import read_headers
from gemix.data.sources.dicom.source import DicomSource
from gemix.data.sources.scan_refs import ScanRef
from gemix.io import s3
from gemix.io.storage import Store
from tests.data.dicom_files import (
    CANARY,
    CANARY_UID,
    CANARY_VALUES,
    PLANTED,
    PLANTED_BAD,
    SALT,
    assert_no_canary,
    assert_no_canary_below,
    write,
    write_archive,
    write_planted_archive,
)
from tests.s3_proxy import FaultyProxy


@pytest.fixture(autouse=True)
def salt(monkeypatch):
    monkeypatch.setenv("GEMIX_PATIENT_SALT", SALT)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., DicomSource]:
    """Writes an archive of patients named in full, some slices each, and its label file."""
    return functools.partial(write_archive, tmp_path / "archive")


def test_nothing_of_headers_or_paths_is_written(tmp_path, capfd, caplog):
    source = write_planted_archive(tmp_path / "archive")
    strict = DataConfig(source="folder", path=source.store.url, resolution=32, max_bad_fraction=0)
    folder = tmp_path / "prepared"
    store = Store(folder)
    caplog.clear()
    capfd.readouterr()
    with caplog.at_level(logging.DEBUG):
        with pytest.raises(DataError, match=f"{PLANTED_BAD} of .* files are bad") as caught:
            prepare_serial(source, strict, store)
        left = assert_no_canary_below(folder)
        manifest = prepare_serial(source, dataclasses.replace(strict, max_bad_fraction=1), store)
    assert_no_canary("".join(traceback.format_exception(caught.value)))
    assert_no_canary("".join(capfd.readouterr()) + caplog.text)
    assert any(re.fullmatch(r"unfinished/part-.*\.parquet", name) for name in left)
    written = assert_no_canary_below(folder)
    assert {"manifest.json", "quarantine.json", "CARD.md", "contact_sheet.png"} < written
    shards = [name for name in written if name.endswith(".parquet")]
    assert len(shards) >= 3
    for name in shards:
        patients = pq.read_table(folder / name)["patient"].to_pylist()
        assert all(re.fullmatch("patient-[0-9a-f]{16}", patient) for patient in patients)
    assert len(json.loads(store.read_bytes("quarantine.json"))) == PLANTED_BAD
    assert manifest.images() == PLANTED
    assert_no_canary(" ".join(manifest.origin["notes"]))


def is_found(text: str | bytes) -> bool:
    try:
        assert_no_canary(text)
    except AssertionError:
        return True
    return False


@pytest.mark.filterwarnings("ignore:Unknown encoding")
def test_every_text_tag_holds_a_canary_but_those_that_decoding_needs(tmp_path):
    header = pydicom.dcmread(write(tmp_path / "slice", is_planted=True))
    texts = {one.keyword: one for one in (*header.file_meta, *header) if one.VR in STR_VR}
    assert {name for name, one in texts.items() if not is_found(str(one.value))} == {
        "ImageOrientationPatient", "ImagePositionPatient", "ImageType", "InstanceNumber",
        "MediaStorageSOPClassUID", "Modality", "PatientID", "PhotometricInterpretation",
        "PixelSpacing", "RescaleIntercept", "RescaleSlope", "RescaleType", "SOPClassUID",
        "TransferSyntaxUID",
    }  # fmt: skip
    known = {entry[4] for tag, entry in DicomDictionary.items() if tag >> 16 and entry[0] in STR_VR}
    assert known - texts.keys() == {"NumberOfFrames"}
    assert is_found(header.preamble)


@pytest.mark.parametrize("word", [f"{CANARY}^Doe", f"{CANARY_UID}.1", CANARY_VALUES["DA"]])
def test_canaries_are_found_in_other_spellings(word):
    data = word.encode()
    assert is_found(f"a {word.lower()} b") and is_found(f"a {data.hex().upper()} b")
    assert is_found(word.encode("utf-16-le")) and is_found(word.encode("utf-16-be"))
    for before in (b"", b"a", b"ab"):
        assert is_found(base64.b64encode(before + data + b"c"))
    assert not is_found(word[1:])


def test_a_bad_file_is_told_without_what_it_holds(tmp_path):
    source, told = write_planted_archive(tmp_path), 0
    for item in source.list().items:
        try:
            source.load(item)
        except InvalidImageError as error:
            told += 1
            assert_no_canary("".join(traceback.format_exception(error)))
    assert told == 9


@pytest.mark.parametrize("said", [None, "", "NO", "YES"])
@pytest.mark.parametrize(
    ("changes", "is_risk"),
    [
        ({}, False),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, True),
        ({"SOPClassUID": MultiFrameGrayscaleWordSecondaryCaptureImageStorage}, True),
        ({"SOPClassUID": f"{SecondaryCaptureImageStorage}7.1.1"}, False),  # of an endoscope
        ({"ConversionType": "WSD"}, True),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, True),
        ({"ImageType": ["DERIVED", "PRIMARY"]}, False),
        ({"ImageType": "SECONDARY"}, True),
        ({"ImageType": None}, False),
    ],
)
def test_slices_that_may_show_names_are_counted(tmp_path, changes, is_risk, said):
    path = write(tmp_path / "a", BurnedInAnnotation=said, **changes)
    (found,) = read_headers(Store(tmp_path), "patient", [path.name])
    assert found.is_burned == (said == "YES" or (is_risk and said != "NO"))


def test_a_note_counts_slices_that_may_show_names(make):
    source = make(patients=1, slices=2)
    for number, kind in enumerate(({}, {"BurnedInAnnotation": "NO"}, {"ConversionType": "DI"})):
        path = Path(source.store.url) / f"{number}"
        write(path, PatientID=f"{CANARY}-0", InstanceNumber=3 + number, **kind)
    (note,) = [note for note in source.list().notes if "burned-in" in note]
    assert note.startswith("1 slices may carry burned-in text (BurnedInAnnotation YES, or a second")


def test_errors_name_no_patient(make, tmp_path):
    source = make(patients=1, slices=1, is_planted=True)
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


@pytest.mark.parametrize("state", ["forbidden", "down"])
def test_a_store_that_refuses_or_fails_is_told_without_the_path(
    s3_server, bucket, monkeypatch, state
):
    name = f"{CANARY}^Doe (F) 19511231/{CANARY}1"
    url = f"{bucket}/archive"
    Store(url).write_bytes(name, b"x")
    remedy = {"forbidden": "credentials .*must be valid and allow", "down": "run again"}[state]
    kind = {"forbidden": StoreAccessError, "down": StoreError}[state]
    monkeypatch.setattr(s3, "RETRY_DELAYS", ())
    with FaultyProxy(s3_server, faults=()).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        if state == "down":
            proxy.down = True
        else:
            proxy.forbidden = {bucket.removeprefix("s3://")}
        source, item = (
            DicomSource(url, "labels.csv"),
            ScanRef(key="x", class_index=0, location=name),
        )
        for read in (
            lambda: source.load(item),
            lambda: read_headers(Store(url), "patient", [name]),
        ):
            wanted = rf"data\.path {url}: a file below it cannot be read.*{remedy}"
            with pytest.raises(kind, match=wanted) as caught:
                read()
            assert "AWS Error" in str(caught.value)
            assert_no_canary("".join(traceback.format_exception(caught.value)))


def test_a_folder_without_permission_is_told_without_its_name(make, monkeypatch):
    source = make(patients=1, slices=1)
    refused, real = f"{source.store.url}/{CANARY}^Doe 0", os.scandir

    def guarded(path="."):
        if os.fspath(path) == refused:  # who runs the tests may be allowed to read anything
            raise PermissionError(13, "Permission denied", refused)
        return real(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(DataError, match=r"data\.path .*denied.*correct its permissions") as caught:
        source.list()
    assert_no_canary("".join(traceback.format_exception(caught.value)))


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
