"""Equal SOPInstanceUIDs do not make copies: equal pixels do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gemix.core.errors import DataError
from gemix.data.sources.dicom.source import DicomSource
from tests.data.dicom_files import CANARY, CANARY_UID, SALT, assert_no_canary, body, write


@pytest.fixture(autouse=True)
def salt(monkeypatch):
    monkeypatch.setenv("GEMIX_PATIENT_SALT", SALT)


def make(root: Path, **changes) -> DicomSource:
    """Two patients a class, three unlike slices each."""
    for index, patient in enumerate(("A0", "A1", "B0", "B1")):
        for number in (1, 2, 3):
            named = {"PatientID": patient, "InstanceNumber": number}
            write(root / f"{patient}-{number}", body(10 * index + number), **named, **changes)
    (root / "labels.csv").write_text("patient,class\nA0,a\nA1,a\nB0,b\nB1,b\n")
    return DicomSource(str(root), "labels.csv")


def test_slices_that_share_a_uid_are_kept_if_their_pixels_differ(tmp_path):
    listing = make(tmp_path, SOPInstanceUID=f"{CANARY_UID}.5").list()
    assert len(listing.items) == listing.listed == 12
    assert not listing.unusable
    assert [item.location for item in listing.items if "A0" in item.location] == [
        "A0-1", "A0-2", "A0-3"
    ]  # fmt: skip


def test_a_copy_is_left_out_and_a_damaged_one_set_aside(tmp_path):
    source = make(tmp_path)
    before = source.list()
    whole = (tmp_path / "A0-2").read_bytes()
    (tmp_path / "A0-2 (1)").write_bytes(whole)
    (tmp_path / "A0-1 cut").write_bytes((tmp_path / "A0-1").read_bytes()[:-900])
    (tmp_path / "0 cut").write_bytes(whole[:-900])  # listed before the intact file
    listing = source.list()
    assert [item.key for item in listing.items] == [item.key for item in before.items]
    assert {item.location for item in before.items} >= {"A0-1", "A0-2"}
    assert {i.location for i in listing.items} & {"A0-1 cut", "0 cut"} == set()
    assert [bad.reason for bad in listing.unusable] == [
        "damaged copy of a slice that is there intact; remove it"
    ] * 2
    assert any("left out 1 copies of a slice" in note for note in listing.notes)
    assert listing.listed == 14


def test_files_of_which_none_is_intact_stay_for_load_to_tell(tmp_path):
    source = make(tmp_path)
    data = (tmp_path / "A0-1").read_bytes()[:-900]
    (tmp_path / "A0-1").write_bytes(data)
    (tmp_path / "A0-1 (1)").write_bytes(data)
    listing = source.list()
    assert len(listing.items) == 13 and not listing.unusable


@pytest.mark.parametrize("key", ["patient", "series"])
def test_one_patient_id_for_all_is_named(tmp_path, key):
    lines = [f"{key},class"]
    for index in range(4):
        series = f"{CANARY_UID}.4.{index}"
        lines.append(f"{series if key == 'series' else CANARY},{'ab'[index % 2]}")
        for number in (1, 2):
            write(
                tmp_path / f"{index}-{number}",
                body(10 * index + number),
                PatientID=CANARY,
                SeriesInstanceUID=series,
                StudyInstanceUID=f"{series}.9",
                SOPInstanceUID=f"{series}.{number}",
                InstanceNumber=number,
            )
    if key == "patient":
        lines = [lines[0], f"{CANARY},a", "other,b"]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    source = DicomSource(str(tmp_path), "labels.csv")
    reason = "all 8 slices of 4 series have one PatientID.*de-identify .*or empty PatientID"
    with pytest.raises(DataError, match=reason) as caught:
        source.list()
    assert_no_canary(str(caught.value))


def test_the_remedies_for_one_patient_id_work(tmp_path):
    """Each study is a patient once PatientID is empty."""
    lines = ["series,class"]
    for index in range(4):
        series = f"{CANARY_UID}.4.{index}"
        lines.append(f"{series},{'ab'[index % 2]}")
        uids = {"SeriesInstanceUID": series, "StudyInstanceUID": f"{series}.9"}
        write(tmp_path / f"{index}", body(index), PatientID="", **uids)
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    listing = DicomSource(str(tmp_path), "labels.csv").list()
    assert len({item.group for item in listing.items}) == 4


def test_a_placeholder_that_most_slices_share_is_noted(tmp_path):
    lines = ["series,class"]
    for index in range(6):
        series = f"{CANARY_UID}.4.{index}"
        lines.append(f"{series},{'ab'[index % 2]}")
        patient = "Anonymous" if index < 4 else f"P{index}"
        write(tmp_path / f"{index}", body(index), PatientID=patient, SeriesInstanceUID=series)
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    notes = DicomSource(str(tmp_path), "labels.csv").list().notes
    assert any("4 of 6 slices have one PatientID, of 2 classes" in note for note in notes)
    assert "Anonymous," not in " ".join(notes).replace("such as Anonymous", "")


def test_equal_pixels_of_two_patients_are_left_to_the_search_for_duplicates(tmp_path):
    source = make(tmp_path)
    same = {"SOPInstanceUID": f"{CANARY_UID}.5"}
    write(tmp_path / "A0-1", body(1), PatientID="A0", InstanceNumber=1, **same)
    write(tmp_path / "B0-1", body(1), PatientID="B0", InstanceNumber=1, **same)
    listing = source.list()
    assert len(listing.items) == 12
    images = {item.location: source.load(item).pixels for item in listing.items}
    np.testing.assert_array_equal(images["A0-1"], images["B0-1"])
