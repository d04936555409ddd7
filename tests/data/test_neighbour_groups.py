"""Groups where patients are not known, seen through what prepare makes of a folder."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gemix.data.config import DataConfig
from gemix.data.prepare import prepare_serial
from gemix.data.shards.manifest import SPLITS
from gemix.data.shards.reading import read_images
from gemix.data.sources import open_source
from gemix.io.storage import Store


def groups_of(root, out, **changes) -> dict[str, str]:
    """Group by file; no group on two sides."""
    config = DataConfig(source="folder", path=str(root), resolution=32, **changes)
    prepare_serial(open_source(config), config, Store(out))
    found, sides = {}, {}
    for split in SPLITS:
        images = read_images([str(out)], split)
        found |= zip(images.sources, images.groups, strict=True)
        for group in images.groups:
            assert sides.setdefault(group, split) == split
    return found


def test_neighbours_that_look_alike_are_one_group(make_folder, tmp_path):
    group = groups_of(make_folder(a=40, b=40), tmp_path / "out")
    for label in "ab":
        names = [group[f"{label}/slice {i}.png"] for i in range(1, 41)]
        assert names[0::2] == names[1::2]  # two slices a patient
        assert len(set(names)) >= 15  # some bodies are alike by chance
    assert not {group[f"a/slice {i}.png"] for i in range(1, 41)} & {
        group[f"b/slice {i}.png"] for i in range(1, 41)
    }


def test_a_file_saved_twice_joins_its_run(make_folder, tmp_path):
    root = make_folder(a=40, b=40)
    before = groups_of(root, tmp_path / "before")
    pixels = np.asarray(Image.open(root / "a" / "slice 5.png"))
    Image.fromarray(np.where(pixels, pixels + 3, 0).astype(np.uint8)).save(
        root / "a" / "slice 999.png"
    )
    after = groups_of(root, tmp_path / "after")
    assert after["a/slice 999.png"] == before["a/slice 5.png"]


def test_added_files_move_no_group(make_folder, tmp_path):
    root = make_folder(a=60, b=60)
    late = [root / label / f"slice {i}.png" for label in "ab" for i in range(41, 61)]
    kept = {path: path.read_bytes() for path in late}
    for path in late:
        path.unlink()
    few = groups_of(root, tmp_path / "few")
    for path, data in kept.items():
        path.write_bytes(data)
    many = groups_of(root, tmp_path / "many")
    assert {name: many[name] for name in few} == few


@pytest.mark.parametrize("rows", [32, 33])
def test_runs_go_on_across_parts(make_folder, tmp_path, monkeypatch, rows):
    root = make_folder(a=90, b=30)
    monkeypatch.setattr("gemix.data.prepare.staging.FEWEST_ROWS", 10**6)
    in_one_part = groups_of(root, tmp_path / "one")
    monkeypatch.setattr("gemix.data.prepare.staging.FEWEST_ROWS", rows)
    assert groups_of(root, tmp_path / "many") == in_one_part


def test_a_group_that_is_suspiciously_large_is_noted(make_folder, tmp_path):
    root = make_folder(a=40, b=40)
    first = np.asarray(Image.open(root / "a" / "slice 1.png")).astype(int)
    for number in range(1, 25):
        Image.fromarray(np.uint8(np.clip(first + number % 7, 0, 255))).save(
            root / "a" / f"slice {number}.png"
        )
        first[20 + number, 20 + number] += 5
    config = DataConfig(source="folder", path=str(root), resolution=32)
    manifest = prepare_serial(open_source(config), config, Store(tmp_path / "out"))
    (note,) = [note for note in manifest.origin["notes"] if "one patient's" in note]
    assert note.startswith("class 'a'") and "data.patient_pattern" in note
