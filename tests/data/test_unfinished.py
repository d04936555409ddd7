"""A run that was stopped goes on where it was, and ends as an undisturbed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gemix.data.config import DataConfig, PhantomConfig
from gemix.data.manifest import MANIFEST
from gemix.data.prepare import build_shard, plan, prepare_here
from gemix.data.sources import open_source
from gemix.errors import DataError
from gemix.storage import Store

CONFIG = DataConfig(
    resolution=32, shard_rows=4, phantom=PhantomConfig(patients_per_class=6, slices_per_patient=2)
)


class Counting:
    """A source that counts what is loaded, and stops after so many scans."""

    def __init__(self, config: DataConfig, most: int = 10**9):
        self.source, self.left, self.loaded = open_source(config), most, 0

    def list(self):
        return self.source.list()

    def load(self, item):
        if self.left == self.loaded:
            raise KeyboardInterrupt
        self.loaded += 1
        return self.source.load(item)


def content(store: Store) -> dict[str, bytes]:
    return {name: store.read_bytes(name) for name in store.list(recursive=True)}


def run(folder: str) -> None:
    """Prepares, with a line for each shard."""
    source, store = open_source(CONFIG), Store(folder)
    for shard in plan(source, CONFIG).shards:
        build_shard(source, shard, CONFIG, store)
        print(shard.name, flush=True)
    prepare_here(source, CONFIG, store)


def test_finished_shards_are_kept_and_nothing_is_done_twice(tmp_path):
    whole = Counting(CONFIG)
    manifest = prepare_here(whole, CONFIG, Store(tmp_path / "whole"))
    stopped, again = Counting(CONFIG, most=22), Counting(CONFIG)
    store = Store(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        prepare_here(stopped, CONFIG, store)
    assert not store.exists(MANIFEST)
    assert prepare_here(again, CONFIG, store) == manifest
    assert whole.loaded == 36
    assert 0 < stopped.loaded + again.loaded - whole.loaded < 4  # of the shard in hand alone
    assert content(store) == content(Store(tmp_path / "whole"))


@pytest.mark.parametrize("damage", ["shard", "note", "gone"])
def test_what_is_damaged_is_built_again(tmp_path, damage):
    manifest = prepare_here(Counting(CONFIG), CONFIG, Store(tmp_path / "whole"))
    store = Store(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        prepare_here(Counting(CONFIG, most=22), CONFIG, store)
    shard = next(name for name in store.list() if name.endswith(".parquet"))
    if damage == "shard":
        store.write_bytes(shard, store.read_bytes(shard)[:-9])
    elif damage == "note":
        store.write_bytes(f"unfinished/{shard}.json", b'{"digest"')
    else:
        store.delete(shard)
    assert prepare_here(Counting(CONFIG), CONFIG, store) == manifest
    assert content(store) == content(Store(tmp_path / "whole"))


def test_other_settings_take_nothing_over(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        prepare_here(Counting(CONFIG, most=22), CONFIG, store)
    other = DataConfig(**{**vars(CONFIG), "windows": ("bone",)})
    source = Counting(other)
    prepare_here(source, other, store)
    assert source.loaded == 36


def test_mended_files_are_taken_up(make_folder, tmp_path):
    root = make_folder(a=10, b=10)
    config = DataConfig(source="folder", path=str(root), resolution=32)
    files = [root / "a" / f"slice {i}.png" for i in (1, 2, 3)]
    whole = [file.read_bytes() for file in files]
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(DataError, match="3 of 20 files are bad"):
        prepare_here(open_source(config), config, Store(tmp_path / "out"))
    for file, data in zip(files, whole, strict=True):
        file.write_bytes(data)
    manifest = prepare_here(open_source(config), config, Store(tmp_path / "out"))
    assert manifest.images() == 20


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path):
    prepare_here(open_source(CONFIG), CONFIG, Store(tmp_path / "whole"))
    folder, rng = str(tmp_path / "killed"), np.random.default_rng(0)
    here = os.path.dirname(__file__)
    code = (
        f"import sys; sys.path.insert(0, {here!r}); import test_unfinished as t; t.run({folder!r})"
    )
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
    assert not Store(folder).exists(MANIFEST)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    left = content(Store(folder))
    aside = [name for name in os.listdir(folder) if ".writing-" in name]
    assert left == content(Store(tmp_path / "whole"))
    assert len(aside) <= 4
