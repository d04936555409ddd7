"""Files below a source's root, on a disk that is not as it should be."""

from __future__ import annotations

import os
import tracemalloc

import pytest

from gemix.core.errors import DataError
from gemix.data.scan import InvalidImageError
from gemix.data.sources.files import MAX_IMAGE_BYTES, list_files, load_image
from gemix.io.storage import Store


def test_loops_of_links_end_and_what_is_beside_them_is_found(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "1.png").touch()
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    (tmp_path / "a" / "itself").symlink_to(tmp_path / "a" / "itself")
    (tmp_path / "here").symlink_to(tmp_path)
    (tmp_path / "above").symlink_to(tmp_path.parent)
    (tmp_path / "a" / "b" / "above").symlink_to(tmp_path)
    found = list_files(Store(tmp_path))
    assert found.names == ["a/b/1.png", "a/itself", "itself"]
    assert found.linked == 3


def test_a_folder_may_be_a_link_to_another_disk(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "1.png").touch()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").symlink_to(tmp_path / "disk")
    assert list_files(Store(tmp_path / "set")).names == ["a/1.png"]


def test_names_in_natural_order_that_differ_in_case_only_stay_two_files(tmp_path):
    (tmp_path / "a").mkdir()
    names = ["a/Slice 2.png", "a/slice 2.png", "a/slice 10.png", "a/срез 1.png", "a/断面 1.png"]
    for name in reversed(names):
        (tmp_path / name).touch()
    if len(os.listdir(tmp_path / "a")) < len(names):
        pytest.skip("a disk that takes names that differ in case for one")
    assert list_files(Store(tmp_path)).names == names


def test_a_link_to_nowhere_is_a_file_and_a_pipe_is_none(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "a" / "linked pipe.png").symlink_to(tmp_path / "a" / "pipe.png")
    assert list_files(Store(tmp_path)).names == ["a/gone.png"]


def test_a_name_that_is_no_text_is_told_apart(tmp_path, misname):
    (tmp_path / "a").mkdir()
    for name in ("1.png", "2.png"):
        (tmp_path / "a" / name).touch()
    misname(tmp_path / "a" / "2.png")
    found = list_files(Store(tmp_path))
    assert (found.names, found.misnamed) == (["a/1.png"], ["a/\\xff2.png"])


@pytest.mark.parametrize("hidden", ["set", "set/a/deep"])
def test_a_folder_without_permission_is_no_empty_folder(tmp_path, monkeypatch, hidden):
    (tmp_path / "set" / "a" / "deep").mkdir(parents=True)
    refused = str(tmp_path / hidden)

    def guarded(real):
        def look(path="."):
            if os.fspath(path) == refused:  # who runs the tests may be allowed to read anything
                raise PermissionError(13, "Permission denied", refused)
            return real(path)

        return look

    monkeypatch.setattr(os, "scandir", guarded(os.scandir))
    monkeypatch.setattr(os, "listdir", guarded(os.listdir))
    with pytest.raises(
        DataError, match=rf"{refused}: .*Permission denied.*correct its permissions"
    ):
        list_files(Store(tmp_path / "set"))


def test_a_file_longer_than_any_image_is_not_read(tmp_path):
    (tmp_path / "long.png").touch()
    os.truncate(tmp_path / "long.png", MAX_IMAGE_BYTES + 1)  # takes no room on the disk
    tracemalloc.start()
    with pytest.raises(
        InvalidImageError, match=f"{MAX_IMAGE_BYTES + 1} bytes; images of 8192 x 8192"
    ):
        load_image(Store(tmp_path), "long.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
