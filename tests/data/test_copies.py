"""Copies of training images under other names: resaved, brightened or mirrored."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gemix.core.errors import DataError
from gemix.data.config import DataConfig, PhantomConfig
from gemix.data.leakage.compare_sets import compare_sets
from gemix.data.leakage.near_duplicates import MIN_COPY_CORRELATION, find_copies
from gemix.data.leakage.overlap import Split, check_no_overlap
from gemix.data.leakage.perceptual_hash import mirror, thumbnails, unit_vectors
from gemix.data.leakage.provenance import (
    PROVENANCE,
    PROVENANCE_SHA256,
    Provenance,
    write_provenance,
)
from gemix.data.phantom import CLASSES, render_slice
from gemix.data.preprocessing.preprocess import preprocess
from gemix.data.scan import Scan
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.shards.schema import to_columns, write_shard
from gemix.io.storage import Store
from tests.data.test_leakage import image_set, textures


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


CHANGES = {
    "JPEG of quality 95": lambda image: as_jpeg(image, 95),
    "JPEG of quality 90": lambda image: as_jpeg(image, 90),
    "brighter by 3": lambda image: np.clip(image.astype(int) + 3, 0, 255).astype(np.uint8),
    "mirrored": lambda image: image[:, ::-1],
    "mirrored and saved again": lambda image: as_jpeg(np.ascontiguousarray(image[:, ::-1]), 95),
}


def phantoms(patients: range, resolution: int) -> np.ndarray:
    """Return two slices of each patient: uint8 [2 * patients, 1, R, R]."""
    config = DataConfig(resolution=resolution, phantom=PhantomConfig(slices_per_patient=2))
    return np.stack(
        [
            preprocess(
                Scan(
                    pixels=render_slice(config.phantom, CLASSES[number % 3], number, place, 96),
                    is_hounsfield=True,
                ),
                config,
            )
            for number in patients
            for place in range(2)
        ]
    )


@pytest.fixture(scope="module")
def slices() -> np.ndarray:
    return phantoms(range(12), 32)


def write_set(url, **splits) -> Store:
    """Write a shard for each split, given as (images, prefix of groups and sources)."""
    store, entries = Store(url), []
    for split, (images, prefix) in splits.items():
        columns = to_columns(
            images,
            np.tile([1.0, 0.0], (len(images), 1)),
            class_index=[0] * len(images),
            patients=[f"{prefix}-{row // 2}" for row in range(len(images))],
            sources=[f"{prefix}/{row}.png" for row in range(len(images))],
        )
        entries.append(write_shard(store, f"{split}-00000.parquet", columns, split))
    size = images.shape[-1]
    Manifest.of(entries, kind="real", classes=("ill", "well"), resolution=size, channels=1).save(
        store
    )
    return store


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_copy_under_another_name_is_refused(slices, tmp_path, change):
    changed = slices[16:].copy()
    changed[3, 0] = change(slices[5, 0])
    gan, other = Store(tmp_path / "gan"), write_set(tmp_path / "other", train=(slices[:16], "p"))
    write_provenance(gan, [Split(other, "train")])
    data = write_set(tmp_path / "data", train=(slices[:16], "p"), test=(changed, "renamed"))
    test, generator = Split(data, "test"), Provenance(gan, "the generator")
    for learned in (Split(data, "train"), generator):
        with pytest.raises(DataError, match=r"share 1 copies of images \(.*\) \(renamed/3\.png\)"):
            check_no_overlap([(learned, test)])
    report = check_no_overlap([(generator, test)], allow=True)
    (shared,) = report.to_json()["shared"]
    assert (shared["groups"], shared["images"], shared["copies"]) == (0, 0, 1)
    assert shared["examples"]["copies"] == ["renamed/3.png"]
    assert "1 copies" in report.tags["gemix.overlap"]
    found = compare_sets(image_set(slices[:16], "a"), image_set(changed, "b"))
    assert found.near >= 1 and found.worst[0].sources == ("a-5", "b-3")  # phantoms are alike


def test_equal_images_do_not_count_as_copies_too(slices, tmp_path):
    both = np.concatenate([slices[:2], slices[3:4, :, :, ::-1]])
    store = write_set(tmp_path, train=(slices[:6], "p"), test=(both, "q"))
    report = check_no_overlap([(Split(store, "train"), Split(store, "test"))], allow=True)
    assert (report.shared[0].images, report.shared[0].copies) == (2, 1)
    assert report.shared[0].examples == ((), ("q/0.png", "q/1.png"), ("q/2.png",))


@pytest.mark.parametrize("resolution", [16, 32])
def test_other_patients_are_no_copies(resolution):
    """Phantoms are more alike than people, and more so the smaller they are."""
    small = thumbnails(phantoms(range(36), resolution))
    copies = unit_vectors(small)
    same = np.arange(72) // 2
    for other in (copies, mirror(copies)):
        correlation = copies @ other.T
        assert correlation[same[:, None] != same].max() < MIN_COPY_CORRELATION - 0.004
    assert not find_copies(small[:36], small[36:]).any()


def test_textures_and_flat_images_are_no_copies():
    flat = np.full((2, 1, 64, 64), 9, np.uint8)
    first, second = thumbnails(textures(1, 50)), thumbnails(textures(2, 50))
    assert not find_copies(first, second).any()
    assert not find_copies(thumbnails(flat), thumbnails(flat)).any()
    assert find_copies(first, np.concatenate([second, first[7:8]])).nonzero()[0].tolist() == [7]


def test_records_of_earlier_versions_are_read_and_reported_as_not_compared(slices, tmp_path):
    data = write_set(tmp_path / "data", train=(slices[:8], "p"), test=(slices[8:], "q"))
    gan = Store(tmp_path / "gan")
    write_provenance(gan, [Split(data, "train")])
    table = pq.read_table(gan.path(PROVENANCE))
    old = table.drop_columns("thumbnail").replace_schema_metadata(table.schema.metadata)
    sink = pa.BufferOutputStream()
    pq.write_table(old, sink)
    gan.write_bytes(PROVENANCE, sink.getvalue().to_pybytes())
    generator = Provenance(gan, "the generator")
    report = check_no_overlap([(generator, Split(data, "test"))])
    assert report.shared == ()
    assert report.not_compared == (f"8 of {generator.name}",)
    assert any("without thumbnails" in warning for warning in report.warnings)
    copy = write_set(tmp_path / "copy", test=(slices[2:4], "p"))
    with pytest.raises(DataError, match=r"1 groups .* and 2 images"):
        check_no_overlap([(generator, Split(copy, "test"))])
    # a network that learns from both goes on with what there is
    both = Store(tmp_path / "both")
    write_provenance(both, [Split(data, "test")], [generator])
    assert Provenance(both, "the network").without_thumbnails == 8
    again = Store(tmp_path / "again")
    write_provenance(again, [Split(data, "train")], [generator])
    assert Provenance(again, "the network").without_thumbnails == 0


def test_the_record_that_a_manifest_names_must_be_there(slices, tmp_path):
    data = write_set(tmp_path / "data", train=(slices[:8], "p"), test=(slices[8:], "q"))
    images = write_set(tmp_path / "images", train=(slices[:2, :, ::-1], "s"))
    sha256 = write_provenance(images, [Split(data, "train")])
    manifest = Manifest.load(images)
    dataclasses.replace(manifest, origin={PROVENANCE_SHA256: sha256}).save(images)
    pair = Provenance(images, "the generator of the softmax images"), Split(data, "test")
    assert check_no_overlap([pair]).to_json()["shared"] == []
    record = images.read_bytes(PROVENANCE)
    images.delete(PROVENANCE)
    with pytest.raises(
        DataError, match=rf"{PROVENANCE}: removed, but {MANIFEST} names it; restore"
    ):
        check_no_overlap([pair])
    write_provenance(images, [])
    with pytest.raises(DataError, match=rf"{PROVENANCE}: .*SHA-256 is not the one in {MANIFEST}"):
        check_no_overlap([pair])
    images.write_bytes(PROVENANCE, record)
    assert not check_no_overlap([pair]).shared
