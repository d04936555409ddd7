"""verify and check: exit codes, messages and files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.shards.schema import to_columns, write_shard
from gemix.io.storage import Store
from jobs import check, verify


def textures(seed, count):
    noise = np.random.default_rng(seed).normal(size=(count, 1, 32, 32))
    smooth = gaussian_filter(noise, (0, 0, 3, 3), mode="wrap")
    return np.clip(smooth / smooth.std() * 50 + 128, 20, 235).astype(np.uint8)


def write_set(url, origin=None, **splits):
    """One shard a split: (images, groups)."""
    store, entries = Store(url), []
    for split, (images, groups) in splits.items():
        labels = np.arange(len(images)) % 2
        columns = to_columns(
            images,
            np.eye(2)[labels],
            class_index=labels,
            patients=groups,
            sources=[f"{split}/{i}" for i in range(len(images))],
        )
        entries.append(write_shard(store, f"{split}-0.parquet", columns, split))
    settings = {"kind": "real", "classes": ("ill", "well"), "resolution": 32, "channels": 1}
    Manifest.of(entries, origin=origin, **settings).save(store)
    return store.url


def part(seed, count=6):
    return textures(seed, count), [f"{seed}-{i}" for i in range(count)]


def test_verify_of_a_whole_set_is_one_line(tmp_path, capsys):
    url = write_set(tmp_path, train=part(1), test=part(2))
    assert verify.COMMAND.main([url]) == 0
    digest = Manifest.load(Store(url)).digest
    expected = f"12 images in 2 shards, all whole; digest {digest}\n"
    assert capsys.readouterr().out == expected


def test_verify_prints_all_damage_and_exits_with_1(tmp_path, capsys):
    url = write_set(tmp_path, train=part(1), test=part(2))
    (tmp_path / "test-0.parquet").unlink()
    (tmp_path / "old.parquet").write_bytes(b"")
    assert verify.COMMAND.main([url]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "file            problem",
        "test-0.parquet  missing",
        "old.parquet     the manifest does not know this file",
    ]
    assert "2 problems" in err and "gemix prepare --overwrite" in err and "Traceback" not in err


@pytest.mark.parametrize("job", [verify, check])
def test_a_directory_without_a_manifest_is_named(tmp_path, capsys, job):
    assert job.COMMAND.main([str(tmp_path)]) == 1
    assert MANIFEST in capsys.readouterr().err


def test_check_of_clean_splits_and_sets(tmp_path, capsys):
    one = write_set(tmp_path / "one", train=part(1), val=part(2), test=part(3))
    other = write_set(tmp_path / "other", train=part(4))
    assert check.COMMAND.main([one]) == 0
    assert capsys.readouterr().out.count("0 shared groups") == 3
    assert check.COMMAND.main([one, other, "--out", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "overlap.json").read_text())
    assert result["comparisons"][0]["images"] == [18, 6]
    assert check.COMMAND.main([other]) == 1
    assert "name a second set" in capsys.readouterr().err


def test_check_finds_what_splits_share(tmp_path, capsys):
    (train, groups), (test, others) = part(1), part(2)
    test[3] = train[5]
    test[4] = train[2] + np.uint8(9)
    others[0] = groups[0] = "any/block-01"
    url, out = (
        write_set(tmp_path / "set", train=(train, groups), test=(test, others)),
        tmp_path / "o",
    )
    assert check.COMMAND.main([url, "--out", str(out)]) == 1
    printed, err = capsys.readouterr()
    assert "1 shared groups; of test, 1 images are in train too and 1 more nearly so" in printed
    assert "any/block-01" in printed and "train and test: overlap" in err
    found = json.loads((out / "overlap.json").read_text())["comparisons"]
    assert len(found) == 1
    assert found[0]["names"] == ["train", "test"]
    assert found[0]["shared_groups"] == ["any/block-01"]
    assert [pair["sources"] for pair in found[0]["worst"]] == [
        ["train/5", "test/3"],
        ["train/2", "test/4"],
    ]
    assert Image.open(out / "overlap.png").size[0] > 500


def test_check_finds_what_sets_share_whatever_the_split(tmp_path, capsys, bucket):
    (train, groups), (test, others) = part(1), part(2)
    one = write_set(f"{bucket}/one", train=(train, groups), val=part(3))
    test[0] = textures(3, 6)[4]
    other = write_set(tmp_path / "other", test=(test, others))
    assert check.COMMAND.main([one, other, "--out", f"{bucket}/out"]) == 1
    pair = Store(f"{bucket}/out").read_json("overlap.json")["comparisons"][0]["worst"][0]
    assert (pair["sources"], pair["splits"]) == (["val/4", "test/0"], ["val", "test"])
    assert (pair["identical"], pair["similarity"]) == (True, 1.0)


def test_made_up_names_of_patients_count_in_sets_of_one_archive_alone(tmp_path, capsys):
    groups = ["run-0123456789abcdef"] * 6
    origin = {"source": "folder", "listed": 12}
    one = write_set(tmp_path / "one", origin, train=(textures(1, 6), groups))
    again = write_set(tmp_path / "again", origin, test=(textures(2, 6), groups))
    larger = write_set(tmp_path / "larger", {**origin, "listed": 13}, test=(textures(3, 6), groups))
    assert check.COMMAND.main([one, again]) == 1
    assert "run-0123456789abcdef" in capsys.readouterr().out
    assert check.COMMAND.main([one, larger]) == 0


def test_check_replaces_a_result_only_when_told_and_nothing_else(tmp_path, capsys):
    url = write_set(tmp_path, train=part(1), test=part(2))
    assert check.COMMAND.main([url, "--out", url]) == 0
    assert check.COMMAND.main([url, "--out", url]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert check.COMMAND.main([url, "--out", url, "--overwrite"]) == 0
    assert verify.COMMAND.main([url]) == 0
