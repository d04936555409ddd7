from __future__ import annotations

import csv

import pytest

from gemix.core.errors import DataError
from gemix.data.scan import InvalidImageError
from gemix.data.sources.covidx import CovidxSource, patient_of


def append(root, line, name="train_COVIDx_CT-3A.txt"):
    with open(root / name, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def test_lists_give_class_box_split_and_patient(make_covidx):
    listing = CovidxSource(str(make_covidx())).list()
    assert listing.classes == ("Normal", "Pneumonia", "COVID-19")
    by_name = {item.key: item for item in listing.items}
    item = by_name["3A_images/P1_2_77_0001.png"]
    assert (item.class_index, item.group, item.split) == (1, "P1_2", "test")
    assert item.box == (4, 10, 92, 84)
    assert listing.listed == len(listing.items) == 24


def test_absent_and_unlisted_images_are_counted(make_covidx):
    root = make_covidx()
    append(root, "gone_1.png 2 0 0 512 512")
    (root / "3A_images" / "stranger.png").write_bytes(b"")
    listing = CovidxSource(str(root)).list()
    assert listing.listed == 25
    assert len(listing.items) == 24
    assert "found 24 of 25 listed images" in listing.notes
    assert "left out 1 images that no list names" in listing.notes


def test_listed_images_that_cannot_be_read_are_told(make_covidx, misname):
    root = make_covidx()
    gone, misnamed = (root / "3A_images" / f"P0_{i}_77_0000.png" for i in (0, 1))
    misname(misnamed)
    gone.unlink()
    gone.symlink_to(root / "nowhere")
    (root / "3A_images" / "more").symlink_to(root)
    source = CovidxSource(str(root))
    listing = source.list()
    assert (len(listing.items), listing.listed) == (23, 24)
    assert "left out 1 files whose names are no UTF-8" in listing.notes
    assert any("did not follow 1 linked folders" in note for note in listing.notes)
    with pytest.raises(InvalidImageError, match="a link to a file that is not there"):
        source.load(next(item for item in listing.items if item.key.endswith(gone.name)))


def test_no_image_stops_with_the_remedy(make_covidx):
    root = make_covidx()
    for file in (root / "3A_images").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"none of the 24 listed images.*copy the image folder"):
        CovidxSource(str(root)).list()


def test_the_image_folder_may_have_any_name(make_covidx):
    root = make_covidx()
    (root / "3A_images").rename(root / "pictures")
    assert CovidxSource(str(root)).list().items[0].key == "pictures/P0_0_77_0000.png"


def test_a_class_without_images_is_left_out_and_one_class_refused(make_covidx):
    root = make_covidx()
    for file in (root / "3A_images").glob("P1_*"):
        file.unlink()
    listing = CovidxSource(str(root)).list()
    assert listing.classes == ("Normal", "COVID-19")
    assert {item.class_index for item in listing.items} == {0, 1}
    assert any("Pneumonia" in note for note in listing.notes)
    for file in (root / "3A_images").glob("P0_*"):
        file.unlink()
    with pytest.raises(DataError, match="all images found are 'COVID-19'"):
        CovidxSource(str(root)).list()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x.png 1 2 3 4", "wanted: filename class xmin"),
        ("x.png one 0 0 9 9", "wanted: filename class xmin"),
        ("x.png 3 0 0 9 9", "class 3; 0 to 2"),
        ("../../etc/x.png 1 0 0 9 9", "no plain file name"),
        ("/etc/x.png 1 0 0 9 9", "no plain file name"),
        ("..\\x.png 1 0 0 9 9", "no plain file name"),
    ],
)
def test_a_malformed_line_is_named_by_file_and_number(make_covidx, line, message):
    root = make_covidx()
    append(root, line)
    with pytest.raises(DataError, match=rf"train_COVIDx_CT-3A\.txt, line 13.*{message}"):
        CovidxSource(str(root)).list()


def test_contradictory_lines_are_refused(make_covidx):
    root = make_covidx()
    append(root, "P0_0_77_0000.png 0 4 10 92 84")  # the same again is harmless
    assert CovidxSource(str(root)).list().listed == 24
    append(root, "P0_0_77_0000.png 0 4 10 92 84", "test_COVIDx_CT-3A.txt")
    with pytest.raises(DataError, match=r"P0_0_77_0000\.png is listed twice and differently"):
        CovidxSource(str(root)).list()


def test_lists_must_be_there_and_of_one_version(make_covidx):
    root = make_covidx()
    (root / "val_COVIDx_CT-2A.txt").write_text("")
    with pytest.raises(DataError, match=r"several versions \(2A, 3A\)"):
        CovidxSource(str(root)).list()
    for file in root.glob("*.txt"):
        file.unlink()
    with pytest.raises(DataError, match="no list file"):
        CovidxSource(str(root)).list()


def test_patients_are_the_longest_known_prefix():
    known = {"CP_1", "CP_10", "NCP_2", "NCP_2_3", "study-a"}
    assert patient_of("CP_1_3001_0001.png", known) == "CP_1"
    assert patient_of("CP_10_3001_0001.png", known) == "CP_10"
    assert patient_of("NCP_2_3_0001.png", known) == "NCP_2_3"
    assert patient_of("study-a-IM0004.png", known) == "study-a"


def test_patients_that_the_metadata_miss_come_from_the_file_name():
    first = patient_of("137covid_patient76_SR_2_IM00015.png", set())
    assert first == patient_of("137covid_patient76_SR_3_IM00044.png", set())
    assert first != patient_of("137covid_patient7_SR_2_IM00015.png", set())
    assert patient_of("COVIDCTMD-cap004-IM0074.png", set()) == "COVIDCTMD-cap004"


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("NCP_96_1328_0032.png", "NCP_96"),
        ("Normal_1725_419_0011.png", "Normal_1725"),
        ("volume-covid19-A-0437_ct-0008.png", "volume-covid19-A-0437"),
        ("LIDC-IDRI-0236-1.3.6.1.4.1.14519.5.2.1.6279.6001.1061649-0039.png", "LIDC-IDRI-0236"),
        ("radiopaedia_36_86526_0-0000.png", "radiopaedia_36_86526"),
        ("coronacases_org_001-0007.png", "coronacases_org_001"),
    ],
)
def test_two_scans_of_a_patient_are_one_patient_also_without_metadata(name, patient):
    assert patient_of(name, set()) == patient


def test_names_of_the_official_lists_give_the_patients_of_the_metadata(shared):
    root = shared("data/covidx-ct-3a-sample")
    with open(root / "metadata.csv", encoding="utf-8-sig") as file:
        known = {row["patient id"].strip() for row in csv.DictReader(file)}
    lists = [(root / f"{split}_COVIDx_CT-3A.txt").read_text() for split in ("val", "test")]
    names = [line.split()[0] for text in lists for line in text.splitlines()]
    of_known = {name: patient for name in names if (patient := patient_of(name, known)) in known}
    assert len(of_known) > 60_000
    assert {name: patient_of(name, set()) for name in of_known} == of_known


@pytest.mark.parametrize(
    ("suffix", "folder"), [("", "images"), ("-2A", "2A_images"), ("_2B", "2B_images")]
)
def test_earlier_versions_are_read_too(make_covidx, suffix, folder):
    root = make_covidx()
    before = CovidxSource(str(root)).list()
    for file in root.glob("*_COVIDx_CT-3A.txt"):
        file.rename(root / file.name.replace("-3A", suffix))
    (root / "3A_images").rename(root / folder)
    listing = CovidxSource(str(root)).list()
    assert [item.group for item in listing.items] == [item.group for item in before.items]
    assert {item.key.split("/")[0] for item in listing.items} == {folder}


def test_the_real_sample_is_found(shared):
    listing = CovidxSource(str(shared("data/covidx-ct-3a-sample"))).list()
    assert len(listing.items) == 9
    assert listing.listed == 67506
    assert {item.group for item in listing.items} == {
        "137covid_patient76",
        "137covid_patient9",
        "COVIDCTMD-cap004",
        "COVIDCTMD-normal002",
    }
