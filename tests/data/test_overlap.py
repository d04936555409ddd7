"""What is learned from and what is tested on: kept apart, and what networks saw is passed on."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from gemix.core.errors import DataError
from gemix.data.leakage.overlap import TAG, Split, check_no_overlap, find_shared
from gemix.data.leakage.provenance import PROVENANCE, Provenance, write_provenance
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.schema import to_columns, write_shard
from gemix.io.storage import Store


def pictures(seed, count=8):
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)


def write_set(url, shard_rows=3, **splits):
    """Shards of at most `shard_rows` rows; of each split (images, prefix of groups and sources)."""
    store, entries = Store(url), []
    for split, (images, prefix) in splits.items():
        for start in range(0, len(images), shard_rows):
            rows = range(start, min(start + shard_rows, len(images)))
            columns = to_columns(
                images[rows.start : rows.stop],
                np.tile([1.0, 0.0], (len(rows), 1)),
                class_index=[0] * len(rows),
                patients=[f"{prefix}-{row // 2}" for row in rows],
                sources=[f"{split}/{row}.png" for row in rows],
            )
            entries.append(write_shard(store, f"{split}-{start:03d}.parquet", columns, split))
    settings = {"kind": "real", "classes": ("ill", "well"), "resolution": 4, "channels": 1}
    Manifest.of(entries, **settings).save(store)
    return store


@pytest.fixture
def clean(tmp_path):
    sets = {"train": (pictures(1), "a"), "val": (pictures(2), "b"), "test": (pictures(3), "c")}
    return write_set(tmp_path / "clean", **sets)


@pytest.fixture
def mixed(tmp_path):
    """One training image is in the test split too, twice and under another patient."""
    train, test = pictures(1), pictures(3)
    test[[1, 4]] = train[6]
    return write_set(tmp_path / "mixed", train=(train, "p"), test=(test, "q"))


def test_splits_without_anything_in_common_pass(clean):
    findings = check_no_overlap([(Split(clean, "train"), Split(clean, s)) for s in ("val", "test")])
    assert findings.to_json() == {"shared": [], "unknown": [], "not_compared": []}
    assert findings.tags == {} and findings.warnings == []


def test_identical_images_are_counted_in_what_is_tested_on(mixed):
    shared = find_shared(Split(mixed, "train"), Split(mixed, "test"))
    assert (shared.groups, shared.images) == (0, 2)
    assert shared.examples == ((), ("test/1.png", "test/4.png"), ())
    back = find_shared(Split(mixed, "test"), Split(mixed, "train"))
    assert (back.images, back.examples[1]) == (1, ("train/6.png",))


def test_shared_groups_are_counted_and_three_are_named(tmp_path):
    store = write_set(tmp_path, train=(pictures(1), "p"), test=(pictures(2), "p"))
    shared = find_shared(Split(store, "train"), Split(store, "test"))
    assert (shared.groups, shared.images) == (4, 0)
    assert shared.examples == (("p-0", "p-1", "p-2"), (), ())
    assert "share 4 groups (p-0, p-1, p-2, …)" in str(shared)


def test_the_refusal_names_both_sides_the_counts_examples_and_the_remedies(mixed):
    pair = (Split(mixed, "train"), Split(mixed, "test"))
    with pytest.raises(DataError) as caught:
        check_no_overlap([pair])
    text = str(caught.value)
    assert f"the train split of {mixed.url} and the test split of {mixed.url}" in text
    assert "share 2 images (test/1.png, test/4.png)" in text
    assert f"gemix check {mixed.url})" in text and "data.allow_overlap=true" in text


def test_overlap_that_is_allowed_is_told_and_tagged(mixed):
    findings = check_no_overlap([(Split(mixed, "train"), Split(mixed, "test"))], allow=True)
    (shared,) = findings.to_json()["shared"]
    assert (shared["groups"], shared["images"]) == (0, 2)
    assert findings.tags[TAG].startswith("allowed: ") and "0 groups, 2 images" in findings.tags[TAG]
    assert "allowed by data.allow_overlap" in findings.warnings[0]


def test_no_image_is_read(mixed, monkeypatch):
    read = []
    columns = Store.read_columns

    def spy(self, name, wanted):
        read.extend(wanted)
        return columns(self, name, wanted)

    monkeypatch.setattr(Store, "read_columns", spy)
    monkeypatch.setattr(Store, "read_bytes", _only_small(Store.read_bytes))
    assert find_shared(Split(mixed, "train"), Split(mixed, "test"))
    assert set(read) == {"patient", "checksum", "source"}


def _only_small(read_bytes):
    def read(self, name):
        assert not name.endswith(".parquet"), name
        return read_bytes(self, name)

    return read


def test_a_set_without_the_split_shares_nothing(clean, tmp_path):
    only = write_set(tmp_path / "only", train=(pictures(1), "a"))
    assert not find_shared(Split(clean, "train"), Split(only, "test"))
    assert not find_shared(Split(only, "val"), Split(clean, "test"))


def test_a_network_has_seen_what_the_one_it_started_from_has(clean, tmp_path):
    first, second = Store(tmp_path / "first"), Store(tmp_path / "second")
    write_provenance(first, [Split(clean, "train")])
    other = write_set(tmp_path / "other", train=(pictures(9), "z"), test=(pictures(1)[5:6], "y"))
    write_provenance(second, [Split(other, "train")], [Provenance(first, "the network")])
    seen = Provenance(second, "the generator")
    assert seen.unknown == ()
    rows = pq.read_table(second.path(PROVENANCE)).to_pylist()
    assert len(rows) == 16
    assert {row["dataset"] for row in rows} == {
        Manifest.load(store).content_digest("train") for store in (clean, other)
    }
    with pytest.raises(DataError, match=r"share 1 images \(test/0.png\).*learned from> "):
        check_no_overlap([(seen, Split(other, "test"))])
    assert not check_no_overlap([(seen, Split(clean, "test"))]).shared


def test_what_several_have_seen_is_kept_once(clean, tmp_path):
    generators = [Store(tmp_path / name) for name in ("one", "two")]
    for store in generators:
        write_provenance(store, [Split(clean, "train")])
    last = Store(tmp_path / "last")
    parts = [Split(clean, "train"), Split(clean, "val")]
    write_provenance(last, parts, [Provenance(store, "the generator") for store in generators])
    assert pq.read_table(last.path(PROVENANCE)).num_rows == 16
    write_provenance(last, parts, [Provenance(last, "itself")])
    assert pq.read_table(last.path(PROVENANCE)).num_rows == 16


def test_a_network_without_a_record_is_passed_on_as_unknown(clean, tmp_path):
    public, trained = Store(tmp_path / "public"), Store(tmp_path / "trained")
    write_provenance(trained, [Split(clean, "train")], [Provenance(public, "the network")])
    images = Store(tmp_path / "images")
    write_provenance(images, [], [Provenance(trained, "the generator")])
    seen = Provenance(images, "the generator of the softmax images")
    name = f"the training images of the network in {public.url}"
    assert seen.unknown == (name,)
    findings = check_no_overlap([(seen, Split(clean, "test")), (seen, Split(clean, "val"))])
    assert findings.to_json() == {"shared": [], "unknown": [name], "not_compared": []}
    assert findings.warnings[0].startswith(name) and findings.tags == {}
    assert find_shared(seen, Split(clean, "train")).images == 8


@pytest.mark.parametrize("damage", ["cut", "changed", "other"])
def test_a_damaged_record_is_no_clean_one(clean, tmp_path, damage):
    store = Store(tmp_path / "gan")
    write_provenance(store, [Split(clean, "train")])
    whole = store.read_bytes(PROVENANCE)
    checksums = pq.read_metadata(store.path(PROVENANCE)).row_group(0).column(1)
    last = checksums.data_page_offset + checksums.total_compressed_size - 40
    broken = {
        "cut": whole[: len(whole) // 2],
        "changed": whole[:last] + bytes([whole[last] ^ 1]) + whole[last + 1 :],
        "other": clean.read_bytes("train-000.parquet"),
    }
    store.write_bytes(PROVENANCE, broken[damage])
    with pytest.raises(DataError, match=r"(?s)seen\.parquet: cannot be read.*--overwrite"):
        check_no_overlap([(Provenance(store, "the generator"), Split(clean, "test"))])


def test_records_live_in_buckets_too(bucket, tmp_path):
    data = write_set(f"{bucket}/data", train=(pictures(1), "a"), test=(pictures(1)[:2], "b"))
    gan = Store(f"{bucket}/gan")
    write_provenance(gan, [Split(data, "train")])
    assert find_shared(Provenance(gan, "the generator"), Split(data, "test")).images == 2
