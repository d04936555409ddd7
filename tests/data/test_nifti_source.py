from __future__ import annotations

import pickle
from pathlib import Path

import boto3
import numpy as np
import pytest

from gemix.core.errors import DataError
from gemix.data.config import DataConfig
from gemix.data.phantom import render_slice
from gemix.data.prepare import prepare_serial
from gemix.data.scan import InvalidImageError
from gemix.data.sources.nifti.source import NiftiSource
from gemix.io.storage import Store
from tests.data.listings import undated
from tests.data.nifti_files import patch, save, volume, write_archive


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "scans")


def test_slices_are_items_and_volumes_are_patients(root):
    (root / "notes.txt").write_text("x")
    listing = NiftiSource(str(root)).list()
    assert listing.classes == ("a", "b")
    assert [item.key for item in listing.items[:3]] == [
        f"a/p1.nii.gz#slice-000{i}" for i in range(3)
    ]
    assert [item.class_index for item in listing.items] == [0] * 3 + [1] * 6
    groups = {item.key.partition("#")[0]: item.group for item in listing.items}
    assert groups == {
        "a/p1.nii.gz": "a/p1",
        "b/p2.nii": "b/p2",
        "b/deep/p10.NII.GZ": "b/deep/p10",
    }
    assert any("9 slices of 3 volumes" in note for note in listing.notes)
    assert any("left out 1 files" in note for note in listing.notes)
    assert listing.group_kind == "volumes"


def test_a_pattern_may_join_the_volumes_of_a_patient(root):
    save(root / "b" / "p2 again.nii", volume(seed=3))
    listing = NiftiSource(str(root), r"(p\d+)").list()
    assert {item.group for item in listing.items} == {"patient-p1", "patient-p2", "patient-p10"}
    assert listing.group_kind == "patients"
    assert any("4 volumes; 3 patients, named by data.patient_pattern" in n for n in listing.notes)
    with pytest.raises(DataError, match=r"no patient in 1 of 4 files, as in 'a/p1\.nii\.gz'"):
        NiftiSource(str(root), r"b/.*(p\d+)").list()


def test_a_volume_without_orientation_is_noted(root):
    patch(root / "b" / "p2.nii", qform_code=0, sform_code=0)
    notes = NiftiSource(str(root)).list().notes
    assert any("1 volumes do not say how the patient lay" in note for note in notes)


def test_what_holds_for_every_source(root):
    source = NiftiSource(str(root))
    listing = source.list()
    assert len({item.key for item in listing.items}) == len(listing.items) == listing.listed
    assert pickle.loads(pickle.dumps(source)).list() == listing


def test_a_class_without_a_usable_volume_is_named(root):
    (root / "a" / "p1.nii.gz").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"a: none of its 1 volumes can be used \(a/p1\.nii\.gz: "):
        NiftiSource(str(root)).list()


def test_folders_that_are_no_classes_are_named(root, tmp_path):
    with pytest.raises(DataError, match=r"nowhere.*no such folder"):
        NiftiSource(str(tmp_path / "nowhere")).list()
    with pytest.raises(DataError, match=r"no class folders.*1 files lie loose: \.gz \(1\)"):
        NiftiSource(str(root / "a")).list()
    (root / "hollow").mkdir()
    with pytest.raises(DataError, match=r"hollow: no volume.*it is empty"):
        NiftiSource(str(root)).list()
    (root / "hollow" / "x.dcm").write_bytes(b"x")
    with pytest.raises(DataError, match=r"hollow: no volume.*only \.dcm \(1\)"):
        NiftiSource(str(root)).list()
    one = tmp_path / "one"
    save(one / "a" / "p.nii", volume())
    with pytest.raises(DataError, match="only one class, 'a'"):
        NiftiSource(str(one)).list()


def test_what_cannot_be_opened_is_set_aside(root, misname):
    save(root / "b" / "p3.nii", volume(seed=3))
    misname(root / "b" / "p3.nii")
    (root / "b" / "p4.nii").symlink_to(root / "nowhere")
    (root / "b" / "p5").symlink_to(root / "a")
    source = NiftiSource(str(root))
    listing = source.list()
    assert [bad.source for bad in listing.unusable] == ["b/\\xffp3.nii"]
    assert listing.listed == len(listing.items) + 1 == 11
    assert any("did not follow 1 linked folders" in note for note in listing.notes)
    (item,) = (item for item in listing.items if item.key == "b/p4.nii")
    with pytest.raises(InvalidImageError, match="a link to a file that is not there"):
        source.load(item)


def test_realistic_volumes_become_shards(tmp_path):
    config = DataConfig(source="nifti", path="unused", resolution=32, max_bad_fraction=0.2)
    phantom = config.phantom
    for number, name in enumerate(["normal"] * 4 + ["cancer"] * 4):
        stack = [render_slice(phantom, name, number, place, 64) for place in range(3)]
        save(tmp_path / "raw" / name / f"p{number}.nii.gz", np.stack(stack), "RAS")
    (tmp_path / "raw" / "normal" / "broken.nii").write_bytes(b"junk")
    source = NiftiSource(str(tmp_path / "raw"))
    scan = source.load(source.list().items[0])
    assert scan.pixels.min() < -900
    manifest = prepare_serial(source, config, Store(str(tmp_path / "out")))
    assert manifest.images() == 24
    assert manifest.origin["reasons"][0]["source"] == "normal/broken.nii"


@pytest.mark.slow
def test_a_bucket_is_the_same_as_a_disk(root, bucket):
    (root / "b" / "junk.nii").write_bytes(b"junk")
    client = boto3.client("s3")
    for path in root.rglob("*.*"):
        name = f"in/{path.relative_to(root).as_posix()}"
        client.upload_file(str(path), bucket.removeprefix("s3://"), name)
    local, remote = NiftiSource(str(root)), NiftiSource(f"{bucket}/in")
    listing = local.list()
    assert undated(remote.list()) == undated(listing)
    for item in listing.items:
        if "#" in item.key:
            np.testing.assert_array_equal(remote.load(item).pixels, local.load(item).pixels)


def test_a_lost_volume_counts_as_a_file_not_as_a_slice(tmp_path):
    """Three of 20 volumes are 15%, although all other slices are there."""
    root = tmp_path / "raw"
    for number in range(20):
        label = "ab"[number % 2]
        slices = np.random.default_rng(number).integers(-1000, 400, (40, 20, 20)).astype(np.int16)
        save(root / label / f"{number}.nii", slices, "LPS")
    for number in (0, 2, 4):
        (root / "a" / f"{number}.nii").write_bytes(b"no volume")
    source = NiftiSource(str(root))
    config = DataConfig(source="nifti", path=str(root), resolution=16, max_bad_fraction=0.1)
    with pytest.raises(DataError, match=r"3 of 20 files are bad.*also class 'a': 3 of 10 files"):
        prepare_serial(source, config, Store(tmp_path / "out"))


def test_folders_of_splits_are_kept(tmp_path):
    for split in ("train", "test"):
        for label in "ab":
            save(tmp_path / split / label / "1.nii", volume(), "LPS")
    save(tmp_path / "labelsTr" / "a" / "1.nii", volume(), "LPS")
    listing = NiftiSource(str(tmp_path)).list()
    assert listing.classes == ("a", "b")
    assert {(item.key[:4], item.split) for item in listing.items} == {
        ("test", "test"),
        ("trai", "train"),
    }
