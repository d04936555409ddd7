from __future__ import annotations

import os

import pytest

from gemix.data.scan import BadImage
from gemix.data.sources.folder import FolderSource
from gemix.errors import DataError


def test_names_stay_as_they_are_in_natural_order(make_folder):
    root = make_folder(**{"Case (a) é": 11, "normal": 2})
    listing = FolderSource(str(root)).list()
    assert listing.classes == ("Case (a) é", "normal")
    names = [item.key for item in listing.items if item.class_index == 0]
    assert names == [f"Case (a) é/slice {i}.png" for i in range(1, 12)]


def test_subfolders_count_and_other_files_are_noted(make_folder):
    root = make_folder(a=2, b=2)
    (root / "a" / "deep" / "er").mkdir(parents=True)
    os.rename(root / "a" / "slice 2.png", root / "a" / "deep" / "er" / "SLICE.PNG")
    (root / "a" / "scan.dcm").write_bytes(b"x")
    (root / "a" / ".hidden.png").write_bytes(b"x")
    (root / ".git").mkdir()
    (root / "readme.txt").write_text("x")
    listing = FolderSource(str(root)).list()
    assert [item.key for item in listing.items][:2] == ["a/deep/er/SLICE.PNG", "a/slice 1.png"]
    assert listing.classes == ("a", "b")
    assert any("1 files that are no images: .dcm (1)" in note for note in listing.notes)
    assert any("1 files beside" in note for note in listing.notes)


def test_names_that_collide_keep_keys_of_their_own(make_folder):
    root = make_folder(a=2, b=2)
    data = (root / "a" / "slice 1.png").read_bytes()
    for name in ("x.png", "X.PNG", "x.jpg"):
        (root / "a" / name).write_bytes(data)
    keys = [item.key for item in FolderSource(str(root)).list().items]
    assert {"a/x.png", "a/X.PNG", "a/x.jpg"} < set(keys)
    assert len(set(keys)) == len(keys) == 7


def test_linked_classes_are_followed_and_loops_are_not(make_folder, tmp_path):
    real = make_folder("real", a=3)
    root = make_folder("root", b=2)
    (root / "a").symlink_to(real / "a")
    (root / "loop").symlink_to(root)
    (root / "b" / "loop").symlink_to(root)
    with pytest.raises(DataError, match="loop: no image"):
        FolderSource(str(root)).list()
    (root / "loop").unlink()
    listing = FolderSource(str(root)).list()
    assert listing.classes == ("a", "b")
    assert len(listing.items) == 5


def test_a_link_to_itself_is_passed_over(make_folder):
    root = make_folder(a=2, b=2)
    (root / "self").symlink_to(root / "self")
    (root / "a" / "self.png").symlink_to(root / "a" / "self.png")
    (root / "a" / "gone.png").symlink_to(root / "nowhere.png")
    assert len(FolderSource(str(root)).list().items) == 4


def test_names_in_any_script_come_through_whole(make_folder):
    names = ["نورمال", "正常", "norm\n\tal", "čistý ☂", "Ω" * 60]
    root = make_folder(**dict.fromkeys(names, 2))
    source = FolderSource(str(root))
    listing = source.list()
    assert set(listing.classes) == set(names)
    for item in listing.items:
        assert source.load(item).pixels.shape == (96, 96)
        assert (root / item.key).is_file()


def test_a_pattern_names_the_patients_that_paths_hold(make_folder):
    root = make_folder(a=3, b=3)
    for index in range(3):
        for name in "ab":
            path = root / name / f"slice {index + 1}.png"
            path.rename(root / name / f"Case{index // 2}_{index}.png")
    assert {item.group for item in FolderSource(str(root)).list().items} == {None}
    listing = FolderSource(str(root), r"Case(\d+)_").list()
    assert [item.group for item in listing.items] == ["patient-0", "patient-0", "patient-1"] * 2
    assert "2 patients, named by data.patient_pattern" in listing.notes
    apart = FolderSource(str(root), r"([^/]+/Case\d+)_").list()
    assert len({item.group for item in apart.items}) == 4


@pytest.mark.parametrize("pattern", [r"P(\d+)", "a/slice(x?)", "(?:slice|(never))"])
def test_files_without_a_patient_are_counted_and_one_is_shown(make_folder, pattern):
    root = make_folder(a=2, b=2)
    with pytest.raises(DataError, match=r"no patient in 4 of 4 files, as in 'a/slice 1\.png'"):
        FolderSource(str(root), pattern).list()
    os.rename(root / "a" / "slice 2.png", root / "a" / "P7.png")
    with pytest.raises(DataError, match="no patient in 3 of 4 files"):
        FolderSource(str(root), r"P(\d+)").list()


def test_a_missing_folder_is_named():
    with pytest.raises(DataError, match=r"no/such/place.*no such folder"):
        FolderSource("no/such/place").list()


def test_loose_images_are_no_classes(make_folder):
    root = make_folder(a=2)
    with pytest.raises(DataError, match=r"no class folders.*2 files lie loose: \.png \(2\)"):
        FolderSource(str(root / "a")).list()


@pytest.mark.parametrize(("file", "found"), [(None, "it is empty"), ("x.dcm", r"only \.dcm \(1\)")])
def test_an_empty_class_is_named(make_folder, file, found):
    root = make_folder(a=2, b=2)
    (root / "hollow").mkdir()
    if file:
        (root / "hollow" / file).write_bytes(b"x")
    with pytest.raises(DataError, match=rf"hollow: no image.*{found}.*remove the folder"):
        FolderSource(str(root)).list()


def test_one_class_is_not_enough(make_folder):
    with pytest.raises(DataError, match="only one class, 'a'"):
        FolderSource(str(make_folder(a=4))).list()


def test_classes_that_differ_in_case_alone_are_refused(make_folder):
    root = make_folder(normal=2, Normal=2)
    with pytest.raises(DataError, match=r"'Normal' and 'normal' differ in case"):
        FolderSource(str(root)).list()


def test_a_file_that_is_gone_is_a_bad_image(make_folder):
    root = make_folder(a=2, b=2)
    source = FolderSource(str(root))
    item = source.list().items[0]
    (root / item.key).unlink()
    with pytest.raises(BadImage, match=r"slice 1\.png"):
        source.load(item)
