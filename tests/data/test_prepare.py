from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from gemix.core.errors import DataError
from gemix.data.config import DataConfig, PhantomConfig
from gemix.data.dataset_card.contact_sheet import CONTACT_SHEET
from gemix.data.dataset_card.markdown import CARD
from gemix.data.prepare import QUARANTINE, list_scans, prepare_serial
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.shards.reading import read_images
from gemix.data.sources import open_source
from gemix.io.storage import Store


def prepared(config, path):
    store = Store(path)
    return prepare_serial(open_source(config), config, store), store


def folder_config(root, **changes):
    return DataConfig(source="folder", path=str(root), resolution=32, **changes)


@pytest.fixture(scope="module")
def phantom_set(tmp_path_factory):
    config = DataConfig(
        resolution=32, phantom=PhantomConfig(patients_per_class=4, slices_per_patient=2)
    )
    return config, *prepared(config, tmp_path_factory.mktemp("phantom"))


def test_a_finished_set_reads_back_by_split(phantom_set):
    _, manifest, store = phantom_set
    sets = {split: read_images([store.url], split) for split in ("train", "val", "test")}
    assert sum(map(len, sets.values())) == 24
    for split, images in sets.items():
        assert images.images.shape[1:] == (1, 32, 32)
        np.testing.assert_array_equal(images.soft_labels, np.eye(3)[images.labels])
        counts = np.bincount(images.labels, minlength=3)
        assert dict(zip(images.classes, counts, strict=True)) == manifest.counts[split]
    groups = [set(images.groups) for images in sets.values()]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]


def test_the_manifest_says_how_it_came_to_be(phantom_set):
    _, manifest, store = phantom_set
    assert Manifest.load(store) == manifest
    assert manifest.kind == "real"
    assert manifest.preprocessing["resolution"] == 32
    assert manifest.preprocessing["windows"] == [[-500, 1400]]
    assert manifest.origin["found"] == 24
    assert manifest.origin["quarantined"] == 0
    assert store.read_json(QUARANTINE) == []


def test_the_contact_sheet_shows_every_class(phantom_set):
    _, _, store = phantom_set
    with Image.open(io.BytesIO(store.read_bytes(CONTACT_SHEET))) as sheet:
        pixels = np.asarray(sheet)
    for row in range(3):
        top = 64 + 156 * row
        before, after = pixels[top : top + 128, 8:136], pixels[top : top + 128, 138:266]
        assert before.std() > 20 and after.std() > 20


def test_the_result_depends_on_scans_and_settings_alone(phantom_set, tmp_path):
    config, manifest, _ = phantom_set
    again, _ = prepared(config, tmp_path / "again")
    assert again == manifest
    other = DataConfig(**{**vars(config), "split_seed": 5})
    assert prepared(other, tmp_path / "other")[0].digest != manifest.digest


def test_the_settings_that_choose_scans_reach_them_and_the_card(make_folder, tmp_path):
    root = make_folder(a=40, b=20)
    config = folder_config(root, slice_step=2)
    whole, _ = prepared(dataclasses.replace(config, slice_step=1), tmp_path / "whole")
    half, store = prepared(config, tmp_path / "half")
    assert half.images() < 0.7 * whole.images()
    card = store.read_bytes(CARD).decode()
    for name, value in (
        ("slice step", "2"),
        ("min lung fraction", "0.0"),
        ("split seed", "0"),
        ("val fraction", f"{config.val_fraction}"),
        ("test fraction", f"{config.test_fraction}"),
    ):
        assert f"| {name} | {value} |" in card, name


def test_shards_are_no_longer_than_asked(make_folder, tmp_path):
    root = make_folder(a=40, b=9)
    five_images = 5 * 32 * 32 / 1e6
    manifest, _ = prepared(folder_config(root, shard_mb=five_images), tmp_path / "out")
    assert max(shard.rows for shard in manifest.shards) == 5
    assert manifest.images() == 49


def test_bad_files_are_set_aside_with_their_reasons(make_folder, tmp_path):
    root = make_folder(a=20, b=20)
    (root / "a" / "slice 3.png").write_bytes(b"")
    cut = (root / "b" / "slice 4.png").read_bytes()[:-100]
    (root / "b" / "slice 4.png").write_bytes(cut)
    Image.fromarray(np.full((64, 64), 9, np.uint16)).save(root / "b" / "slice 7.png")

    manifest, store = prepared(folder_config(root, max_bad_fraction=0.1), tmp_path / "out")

    bad = {entry["source"]: entry["reason"] for entry in store.read_json(QUARANTINE)}
    assert set(bad) == {"a/slice 3.png", "b/slice 4.png", "b/slice 7.png"}
    assert "empty" in bad["a/slice 3.png"]
    assert "truncated" in bad["b/slice 4.png"]
    assert "8 bits" in bad["b/slice 7.png"]
    assert manifest.origin["quarantined"] == 3
    assert manifest.images() == 37


def test_too_many_bad_files_stop_it_unfinished(make_folder, tmp_path):
    root = make_folder(a=10, b=10)
    for i in (1, 2, 3):
        (root / "a" / f"slice {i}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"3 of 20 files are bad.*0\.05.*\n  a/slice 1\.png: empty"):
        prepared(folder_config(root), tmp_path / "out")
    store = Store(tmp_path / "out")
    assert not store.exists(MANIFEST)
    assert len(store.read_json(QUARANTINE)) == 3


def test_a_class_that_is_all_bad_is_named(make_folder, tmp_path):
    root = make_folder(a=30, b=4)
    for file in (root / "b").iterdir():
        file.write_bytes(b"")
    with pytest.raises(
        DataError, match=r"class 'b' has no training image left .*quarantine\.json\): 4"
    ):
        prepared(folder_config(root, max_bad_fraction=1), tmp_path / "out")


def test_a_box_outside_the_image_sets_that_file_aside(make_covidx, tmp_path):
    root = make_covidx(patients=6)
    file = root / "train_COVIDx_CT-3A.txt"
    lines = file.read_text().splitlines()
    name = lines[0].split()[0]
    lines[0] = f"{name} 0 0 0 97 96"
    file.write_text("\n".join(lines))
    config = DataConfig(source="covidx", path=str(root), resolution=32)
    _, store = prepared(config, tmp_path / "out")
    (bad,) = store.read_json(QUARANTINE)
    assert bad["source"] == f"3A_images/{name}"
    assert "(0, 0, 97, 96)" in bad["reason"] and "96 x 96" in bad["reason"]


def test_of_exact_duplicates_one_stays(make_folder, tmp_path):
    root = make_folder(a=10, b=10)
    for name in ("zy", "zz"):
        (root / "a" / f"{name}.png").write_bytes((root / "a" / "slice 1.png").read_bytes())
    manifest, store = prepared(folder_config(root), tmp_path / "out")
    assert manifest.images() == 20
    assert manifest.origin["duplicates"]["exact"] == 2
    assert "2 images are exact duplicates of others and were dropped" in manifest.origin["notes"]
    sources = read_images([store.url]).sources
    assert len(set(sources)) == 20 and "a/zz.png" not in sources


def test_an_image_with_two_labels_is_set_aside(make_folder, tmp_path):
    root = make_folder(a=20, b=20)
    (root / "b" / "zz.png").write_bytes((root / "a" / "slice 3.png").read_bytes())
    manifest, store = prepared(folder_config(root), tmp_path / "out")
    bad = {entry["source"]: entry["reason"] for entry in store.read_json(QUARANTINE)}
    assert set(bad) == {"a/slice 3.png", "b/zz.png"}
    assert "b/zz.png, which has another label" in bad["a/slice 3.png"]
    assert manifest.origin["duplicates"]["label_conflicts"] == 2
    assert not set(bad) & set(read_images([store.url]).sources)


def test_a_copy_in_training_gives_way_to_the_test_image(make_covidx, tmp_path):
    root = make_covidx(patients=6)
    train = (root / "train_COVIDx_CT-3A.txt").read_text().split()[0]
    test = (root / "test_COVIDx_CT-3A.txt").read_text().split()[0]
    (root / "3A_images" / train).write_bytes((root / "3A_images" / test).read_bytes())
    config = DataConfig(source="covidx", path=str(root), resolution=32)
    manifest, store = prepared(config, tmp_path / "out")
    assert manifest.origin["duplicates"]["exact"] == 1
    assert f"3A_images/{test}" in read_images([store.url], "test").sources
    assert f"3A_images/{train}" not in read_images([store.url]).sources


def test_scans_that_a_rule_leaves_out_are_counted_not_bad(tmp_path):
    phantom = PhantomConfig(patients_per_class=8, slices_per_patient=4)
    config = DataConfig(resolution=32, phantom=phantom)
    every, _ = prepared(config, tmp_path / "all")
    picky = DataConfig(resolution=32, phantom=phantom, min_lung_fraction=0.3)
    manifest, _ = prepared(picky, tmp_path / "picky")
    left_out = manifest.origin["left_out"]["min_lung_fraction"]
    assert 0 < left_out < every.images()
    assert manifest.images() == every.images() - left_out
    assert manifest.origin["quarantined"] == 0


def test_the_card_tells_counts_and_warns_of_unknown_patients(make_folder, tmp_path):
    _, store = prepared(folder_config(make_folder(a=20, b=20)), tmp_path / "out")
    text = store.read_bytes(CARD).decode()
    assert "The patients are not known" in text
    assert "| a |" in text and "contact_sheet.png" in text


def test_the_histograms_count_every_pixel(phantom_set):
    _, manifest, _ = phantom_set
    counts = {
        name: sum(counts[name] for counts in manifest.counts.values()) for name in manifest.classes
    }
    for name, histogram in manifest.origin["histograms"].items():
        assert len(histogram) == 64 and sum(histogram) == counts[name] * 32 * 32


def test_a_class_of_fewer_images_than_splits_is_refused(make_folder):
    config = folder_config(make_folder(a=9, b=2))
    with pytest.raises(DataError, match=r"class 'b': 2 images.*3 parts.*data\.val_fraction"):
        list_scans(open_source(config), config)


def test_shards_of_an_interrupted_run_do_not_stay(make_folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train-00099.parquet").write_bytes(b"old")
    prepared(folder_config(make_folder()), tmp_path / "out")
    assert not (tmp_path / "out" / "train-00099.parquet").exists()


@pytest.mark.slow
@pytest.mark.parametrize("source", ["folder", "covidx"])
def test_a_bucket_is_the_same_as_a_disk(source, bucket, make_folder, make_covidx, tmp_path):
    root = make_folder() if source == "folder" else make_covidx()
    for path in root.rglob("*"):
        if path.is_file():
            Store(f"{bucket}/in").write_bytes(path.relative_to(root).as_posix(), path.read_bytes())
    local = DataConfig(source=source, path=str(root), resolution=32)
    remote = DataConfig(source=source, path=f"{bucket}/in", resolution=32)

    on_disk, disk = prepared(local, tmp_path / "out")
    in_bucket, store = prepared(remote, f"{bucket}/out")

    assert in_bucket.digest == on_disk.digest
    assert in_bucket.shards == on_disk.shards
    np.testing.assert_array_equal(
        read_images([store.url], "train").images, read_images([disk.url], "train").images
    )
