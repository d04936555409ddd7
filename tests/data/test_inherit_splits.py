"""An archive that has grown keeps the sides that a set of it had before."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from gemix.core.config_schema import InvalidConfig
from gemix.core.errors import DataError
from gemix.data.config import DataConfig, PhantomConfig
from gemix.data.prepare import check_locations, prepare_serial
from gemix.data.shards.manifest import Manifest
from gemix.data.sources import open_source
from gemix.io.storage import Store

SLICES = 60


@pytest.fixture
def folder(make_folder) -> DataConfig:
    """Two classes of thirty patients without names, two slices each."""
    root = make_folder(a=SLICES, b=SLICES)
    return DataConfig(source="folder", path=str(root), resolution=32)


def sides(store: Store) -> dict[str, tuple[str, str]]:
    """Split and group of each scan."""
    found = {}
    for shard in Manifest.load(store).shards:
        table = store.read_columns(shard.name, ["source", "patient"]).to_pydict()
        for source, patient in zip(table["source"], table["patient"], strict=True):
            found[source] = shard.split, patient
    return found


def prepared(config: DataConfig, store: Store) -> dict[str, tuple[str, str]]:
    prepare_serial(open_source(config), config, store)
    return sides(store)


def without_every_third_pair(config: DataConfig, folder) -> DataConfig:
    """The archive as it was before: the slices 1, 7, 13 and so on were not there."""
    shutil.copytree(config.path, folder)
    for label in "ab":
        for number in range(1, SLICES, 6):
            (folder / label / f"slice {number}.png").unlink()
    return dataclasses.replace(config, path=str(folder))


def test_files_put_before_others_move_none_of_them(folder, tmp_path):
    small = without_every_third_pair(folder, tmp_path / "small")
    before = prepared(small, Store(tmp_path / "before"))
    alone = prepared(folder, Store(tmp_path / "alone"))
    assert any(before[scan][0] != alone[scan][0] for scan in before)  # the runs got other names
    grown = dataclasses.replace(folder, splits_from=f"{tmp_path}/before")
    store = Store(tmp_path / "grown")
    after = prepared(grown, store)
    assert len(before) == 100 and len(after) == 120
    assert all(before[scan][0] == after[scan][0] for scan in before)
    groups = {group: split for split, group in after.values()}
    assert all(groups[group] == split for split, group in after.values())
    notes = Manifest.load(store).origin["notes"]
    assert "100 of 120 scans keep the split that they have in data.splits_from" in notes


def test_new_groups_are_drawn_as_ever(folder, tmp_path):
    small = dataclasses.replace(folder, path=f"{tmp_path}/small")
    for label in "ab":
        shutil.copytree(f"{folder.path}/{label}", f"{small.path}/{label}")
        for number in range(21, SLICES + 1):
            (tmp_path / "small" / label / f"slice {number}.png").unlink()
    before = prepared(small, Store(tmp_path / "before"))
    alone = prepared(folder, Store(tmp_path / "alone"))
    grown = dataclasses.replace(folder, splits_from=f"{tmp_path}/before")
    after = prepared(grown, Store(tmp_path / "grown"))
    assert {scan: after[scan][0] for scan in before} == {scan: before[scan][0] for scan in before}
    new = after.keys() - before.keys()
    assert {scan: after[scan] for scan in new} == {scan: alone[scan] for scan in new}


def test_what_new_scans_join_is_tested_on(folder, tmp_path):
    """Between two runs, one of which is tested on, come slices that look like both."""
    before = prepared(folder, Store(tmp_path / "before"))
    in_order = [f"a/slice {number}.png" for number in range(1, SLICES + 1)]
    scan, other = next(
        pair
        for pair in zip(in_order[1::2], in_order[2::2], strict=False)
        if {before[one][0] for one in pair} == {"train", "test"}
    )
    pixels = [
        np.asarray(open_source(folder).load(item).pixels, float)
        for item in open_source(folder).list().items
        if item.key in (scan, other)
    ]
    bridge = np.mean(pixels, axis=0).astype(np.uint8)
    Image.fromarray(bridge).save(f"{folder.path}/{scan.removesuffix('.png')}b.png")
    grown = dataclasses.replace(folder, splits_from=f"{tmp_path}/before")
    store = Store(tmp_path / "grown")
    after = prepared(grown, store)
    assert after[scan] == after[other] and after[scan][0] == "test"
    (note,) = (n for n in Manifest.load(store).origin["notes"] if "another split" in n)
    assert note.startswith("2 images of 1 groups")
    others = before.keys() - {one for one in after if after[one] == after[scan]}
    assert all(before[one][0] == after[one][0] for one in others)


def test_patients_keep_their_side_whatever_their_files_are_called(folder, tmp_path):
    config = dataclasses.replace(folder, patient_pattern=r"(\w/slice \d)")
    before = prepared(config, Store(tmp_path / "before"))
    other = dataclasses.replace(config, split_seed=7, splits_from=f"{tmp_path}/before")
    for label in "ab":
        for number in range(1, SLICES + 1):
            name = f"{folder.path}/{label}/slice {number}"
            shutil.move(f"{name}.png", f"{name} again.png")
    after = prepared(other, Store(tmp_path / "after"))
    assert {group: split for split, group in after.values()} == {
        group: split for split, group in before.values()
    }


def test_what_cannot_settle_anything_is_refused(folder, tmp_path):
    def wrong(**settings) -> DataConfig:
        return dataclasses.replace(folder, **settings)

    with pytest.raises(DataError, match=r"manifest\.json: not there"):
        prepared(wrong(splits_from=f"{tmp_path}/nowhere"), Store(tmp_path / "out"))
    few = PhantomConfig(patients_per_class=3, slices_per_patient=2)
    phantom = DataConfig(source="phantom", resolution=32, phantom=few)
    prepared(phantom, Store(tmp_path / "phantom"))
    with pytest.raises(
        DataError, match=r"data\.splits_from .*phantom: knows none of the 120 scans"
    ):
        prepared(wrong(splits_from=f"{tmp_path}/phantom"), Store(tmp_path / "out"))
    with pytest.raises(DataError, match=r"data\.splits_from .*would replace the splits"):
        check_locations(wrong(splits_from=f"{tmp_path}/phantom/"), Store(tmp_path / "phantom"))
    with pytest.raises(InvalidConfig, match=r"splits_from.*data\.folds=5 draws"):
        wrong(splits_from=f"{tmp_path}/phantom", folds=5)
