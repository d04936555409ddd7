"""The contract of a store: on a disk and in a bucket alike."""

from __future__ import annotations

import errno
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from gemix.core.errors import AlreadyFinishedError, DataError, DiskFullError, StoreAccessError
from gemix.io.storage import Store, open_output


@pytest.fixture(params=["local", "s3"])
def url(request, tmp_path) -> str:
    if request.param == "local":
        return str(tmp_path / "set")
    return f"{request.getfixturevalue('bucket')}/set"


def test_what_is_written_is_read(url):
    store = Store(url)
    store.write_bytes("a/b.bin", b"\0data")
    store.write_json("c.json", {"x": [1, None]})
    assert store.read_bytes("a/b.bin") == b"\0data"
    assert store.read_json("c.json") == {"x": [1, None]}
    assert store.list() == ["c.json"]
    assert store.list(recursive=True) == ["a/b.bin", "c.json"]
    assert (store / "a").read_bytes("b.bin") == b"\0data"


def test_an_empty_place_is_empty(url):
    store = Store(url)
    assert store.list(recursive=True) == [] and not store.exists("x")
    store.delete("x")
    with pytest.raises(DataError, match="x: cannot be read"):
        store.read_bytes("x")


def test_files_are_replaced_and_deleted(url):
    store = Store(url)
    store.write_bytes("x", b"1")
    store.write_bytes("x", b"22")
    assert store.read_bytes("x") == b"22"
    store.delete("x")
    assert not store.exists("x")


def test_a_store_travels_to_other_processes(url):
    Store(url).write_bytes("x", b"1")
    assert pickle.loads(pickle.dumps(Store(url))).read_bytes("x") == b"1"


def test_a_finished_result_is_kept_unless_told(url):
    store = open_output(url, "done.json", overwrite=False)
    store.write_bytes("part", b"1")
    assert open_output(url, "done.json", overwrite=False).exists("part")
    store.write_json("done.json", {})
    with pytest.raises(AlreadyFinishedError, match="--overwrite"):
        open_output(url, "done.json", overwrite=False)
    assert open_output(url, "done.json", overwrite=True).list(recursive=True) == []


def test_overwriting_never_empties_a_folder_that_is_not_a_result(url):
    Store(url).write_bytes("thesis.tex", b"years of work")
    assert open_output(url, "done.json", overwrite=True).exists("thesis.tex")


def test_no_ending_changes_the_bytes(url):
    for name in ("x.gz", "x.zst"):
        Store(url).write_bytes(name, b"as they are")
        assert Store(url).read_bytes(name) == b"as they are"


def test_broken_json_is_named(url):
    store = Store(url)
    store.write_bytes("x.json", b"{")
    with pytest.raises(DataError, match=r"x\.json: not valid JSON"):
        store.read_json("x.json")


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.write_bytes("x", b"old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.write_bytes("x", b"new")
    assert store.read_bytes("x") == b"old" and store.list() == ["x"]


def test_other_schemes_are_refused():
    with pytest.raises(DataError, match="s3://"):
        Store("gs://bucket/x")


def test_a_file_is_created_once(url):
    store = Store(url)
    assert store.create("a/x", b"1")
    assert not store.create("a/x", b"2")
    assert store.read_bytes("a/x") == b"1"
    assert store.list(recursive=True) == ["a/x"]
    store.delete("a/x")
    assert store.create("a/x", b"2")


def test_of_many_processes_that_create_a_file_one_succeeds(url):
    store = Store(url)
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: store.create("x", str(n).encode()), range(8)))
    assert sum(done) == 1
    assert store.read_bytes("x") == str(done.index(True)).encode()


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store("~/runs/x").url == f"{tmp_path}/runs/x"
    assert Store("./~").url.endswith("/~")


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.ENOSPC, DiskFullError, "no space left on {}: x of 3 bytes cannot be written"),
        (errno.EDQUOT, DiskFullError, "no space left on {}"),
        (errno.EROFS, StoreAccessError, "{}: x cannot be written .*Read-only.*writable"),
        (errno.EACCES, StoreAccessError, "{}: x cannot be written"),
    ],
)
def test_a_disk_that_cannot_be_written_is_named_and_the_old_file_stays(
    tmp_path, monkeypatch, number, kind, says
):
    store = Store(tmp_path)
    store.write_bytes("x", b"old")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind, match=says.format(tmp_path)):
        store.write_bytes("x", b"new")
    assert store.list() == ["x"] and store.read_bytes("x") == b"old"
