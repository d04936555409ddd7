"""A run that was stopped goes on where it was, and ends as an undisturbed one."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gemix.core.errors import DataError
from gemix.data.config import DataConfig, PhantomConfig
from gemix.data.prepare import list_scans, prepare, prepare_serial
from gemix.data.shards.manifest import MANIFEST
from gemix.data.sources import open_source, phantom
from gemix.io.storage import Store

ROOT = Path(__file__).resolve().parents[2]

CONFIG = DataConfig(
    resolution=32,
    shard_mb=20 * 32 * 32 / 1e6,
    phantom=PhantomConfig(patients_per_class=16, slices_per_patient=2),
)
IMAGES = 96  # in three parts and six shards


class Counting:
    """A source that counts what is loaded, and stops after so many scans."""

    def __init__(self, config: DataConfig, most: int = 10**9):
        self.source, self.left, self.loaded = open_source(config), most, 0

    def list(self, map_fn):
        return self.source.list(map_fn)

    def load(self, item):
        if self.left == self.loaded:
            raise KeyboardInterrupt
        self.loaded += 1
        return self.source.load(item)


def stop_while_writing(store: Store, done: int) -> None:
    """Prepares until so many shards are written."""

    def map_fn(function, inputs, what):
        for number, one in enumerate(inputs):
            if what == "shards written" and number == done:
                raise KeyboardInterrupt
            yield function(one)

    source = open_source(CONFIG)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, list_scans(source, CONFIG), CONFIG, store, map_fn)


def content(store: Store) -> dict[str, bytes]:
    return {name: store.read_bytes(name) for name in store.list(recursive=True)}


def run(folder: str) -> None:
    """Prepares, with a line at the start."""
    source, store = open_source(CONFIG), Store(folder)
    print("started", flush=True)
    prepare_serial(source, CONFIG, store)


@pytest.fixture(scope="module", autouse=True)
def slices_drawn_once() -> Iterator[None]:
    """Keeps the phantom's slices, which take most of the time and are the same in every test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "render_slice", functools.cache(phantom.render_slice))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("whole"))
    prepare_serial(open_source(CONFIG), CONFIG, store)
    return store


def test_finished_parts_are_kept_and_nothing_is_done_twice(whole, tmp_path):
    stopped, again = Counting(CONFIG, most=70), Counting(CONFIG)
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        prepare_serial(stopped, CONFIG, store)
    assert not store.exists(MANIFEST)
    prepare_serial(again, CONFIG, store)
    assert again.loaded == IMAGES - 64  # but for the part in hand
    assert content(store) == content(whole)


def test_finished_shards_are_kept(whole, tmp_path):
    store = Store(tmp_path)
    stop_while_writing(store, done=3)
    written = {name: os.stat(store.path(name)).st_ino for name in store.list()}
    shards = [name for name in written if name.endswith(".parquet")]
    assert len(shards) == 3
    source = Counting(CONFIG)
    prepare_serial(source, CONFIG, store)
    assert source.loaded == 0
    for name in shards:
        assert os.stat(store.path(name)).st_ino == written[name]
    assert content(store) == content(whole)


@pytest.mark.parametrize("where", ["part", "shard"])
@pytest.mark.parametrize("damage", ["cut", "note", "gone"])
def test_what_is_damaged_is_made_again(whole, tmp_path, where, damage):
    store = Store(tmp_path)
    stop_while_writing(store, done=3)
    (part,) = [n for n in store.list(recursive=True) if re.search("part-000001.*parquet$", n)]
    name = part if where == "part" else "train-00001.parquet"
    if damage == "cut":
        store.write_bytes(name, store.read_bytes(name)[:-9])
    elif damage == "note":
        store.write_bytes(f"unfinished/{os.path.basename(name)}.json", b'{"digest"')
    else:
        store.delete(name)
    prepare_serial(Counting(CONFIG), CONFIG, store)
    assert content(store) == content(whole)


def test_other_settings_take_nothing_over(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        prepare_serial(Counting(CONFIG, most=70), CONFIG, store)
    other = DataConfig(**{**vars(CONFIG), "windows": ("bone",)})
    source = Counting(other)
    prepare_serial(source, other, store)
    assert source.loaded == IMAGES


def test_mended_files_are_taken_up(make_folder, tmp_path):
    root = make_folder(a=10, b=10)
    config = DataConfig(source="folder", path=str(root), resolution=32)
    files = [root / "a" / f"slice {i}.png" for i in (1, 2, 3)]
    whole = [file.read_bytes() for file in files]
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(DataError, match="3 of 20 files are bad"):
        prepare_serial(open_source(config), config, Store(tmp_path / "out"))
    for file, data in zip(files, whole, strict=True):
        file.write_bytes(data)
    manifest = prepare_serial(open_source(config), config, Store(tmp_path / "out"))
    assert manifest.images() == 20


def test_a_file_that_was_replaced_meanwhile_is_read_again(make_folder, tmp_path):
    root = make_folder(a=40, b=40)
    config = DataConfig(source="folder", path=str(root), resolution=32)
    store, undisturbed = Store(tmp_path / "out"), Store(tmp_path / "undisturbed")
    with pytest.raises(KeyboardInterrupt):
        prepare_serial(Counting(config, most=70), config, store)
    shutil.copyfile(root / "b" / "slice 3.png", root / "a" / "slice 3.png")
    prepare_serial(open_source(config), config, undisturbed)
    source = Counting(config)
    prepare_serial(source, config, store)
    assert source.loaded == 80 - 32  # the part of other files is kept
    assert content(store) == content(undisturbed)


def test_files_that_stay_bad_cost_no_part(make_folder, tmp_path):
    root = make_folder(a=20, b=20)
    for label in "ab":
        (root / label / "slice 1.png").write_bytes(b"")
    config = DataConfig(source="folder", path=str(root), resolution=32, max_bad_fraction=0.1)
    with pytest.raises(KeyboardInterrupt):
        prepare_serial(Counting(config, most=35), config, Store(tmp_path / "out"))
    again = Counting(config)
    prepare_serial(again, config, Store(tmp_path / "out"))
    assert again.loaded == 8 + 2  # what was left, and the bad ones of the part that was done


def test_runs_of_two_settings_take_no_part_of_each_other(tmp_path):
    other = DataConfig(**{**vars(CONFIG), "windows": ("bone",)})
    alone = prepare_serial(open_source(CONFIG), CONFIG, Store(tmp_path / "alone"))
    store = Store(tmp_path / "both")

    def map_fn(function, inputs, what):
        if what == "shards written":  # the other one reads its parts meanwhile
            with pytest.raises(KeyboardInterrupt):
                prepare_serial(Counting(other, most=70), other, store)
        yield from map(function, inputs)

    source = open_source(CONFIG)
    assert prepare(source, list_scans(source, CONFIG), CONFIG, store, map_fn).digest == alone.digest


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(whole, tmp_path):
    folder, rng = str(tmp_path / "killed"), np.random.default_rng(0)
    command = [
        sys.executable,
        "-c",
        f"from tests.data.test_resume_cache import run; run({folder!r})",
    ]
    for _ in range(4):
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.6))
            process.send_signal(signal.SIGKILL)
    assert not Store(folder).exists(MANIFEST)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    assert content(Store(folder)) == content(whole)
