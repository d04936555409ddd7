from __future__ import annotations

import os

import pytest

from gemix.core.errors import DataError
from gemix.data.config import DataConfig
from gemix.data.prepare import prepare_serial
from gemix.data.scan import InvalidImageError
from gemix.data.sources.folder import FolderSource
from gemix.io.storage import Store


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


def test_a_link_to_nowhere_is_a_bad_image(make_folder):
    root = make_folder(a=2, b=2)
    (root / "self").symlink_to(root / "self")
    for name, target in (("self.png", root / "a" / "self.png"), ("gone.png", root / "nowhere")):
        (root / "a" / name).symlink_to(target)
    source = FolderSource(str(root))
    items = {item.key: item for item in source.list().items}
    assert len(items) == 6
    for name in ("a/self.png", "a/gone.png"):
        with pytest.raises(InvalidImageError, match="a link to a file that is not there; fetch it"):
            source.load(items[name])


def test_linked_folders_that_are_not_followed_are_counted(make_folder, tmp_path):
    real = make_folder("real", a=3)
    root = make_folder("root", a=2, b=2)
    assert not any("linked" in note for note in FolderSource(str(root)).list().notes)
    for name in ("one", "two", ".hidden"):
        (root / "b" / name).symlink_to(real / "a")
    listing = FolderSource(str(root)).list()
    assert len(listing.items) == 4
    assert any("did not follow 2 linked folders" in note for note in listing.notes)


def test_files_whose_names_are_no_text_are_set_aside_and_the_others_prepared(
    make_folder, tmp_path, misname
):
    root = make_folder(a=20, b=20)
    misname(root / "a" / "slice 3.png")
    (root / "b" / "notes.txt").write_text("x")
    misname(root / "b" / "notes.txt")
    config = DataConfig(source="folder", path=str(root), resolution=32)
    source, store = FolderSource(str(root)), Store(tmp_path / "out")
    listing = source.list()
    assert (len(listing.items), listing.listed) == (39, 40)
    assert any("1 files that are no images: .txt (1)" in note for note in listing.notes)
    assert prepare_serial(source, config, store).images() == 39
    (bad,) = store.read_json("quarantine.json")
    assert bad["source"] == "a/\\xffslice 3.png"
    assert "no UTF-8" in bad["reason"] and "rename it" in bad["reason"]


def test_classes_whose_names_are_no_text_are_named(make_folder, misname):
    root = make_folder(a=1, b=1, c=1)
    misname(root / "c" / "slice 1.png")
    with pytest.raises(DataError, match=r"c: no image.*names are no UTF-8: rename them"):
        FolderSource(str(root)).list()
    misname(root / "c")
    with pytest.raises(DataError, match=r"\\xffc: a class folder whose name is no UTF-8; rename"):
        FolderSource(str(root)).list()


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
    with pytest.raises(InvalidImageError, match=r"slice 1\.png"):
        source.load(item)
