from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gemix.core.errors import DataError
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.shards.reading import read_images
from gemix.data.shards.schema import SCHEMA, to_columns, write_shard
from gemix.io.storage import Store

CLASSES = ("ill", "well")


def columns_of(images, labels, **changes):
    arguments = {
        "class_index": labels,
        "patients": [f"p{i}" for i in range(len(images))],
        "sources": [f"s{i}" for i in range(len(images))],
    }
    return to_columns(images, np.eye(2)[labels], **arguments | changes)


def write_set(path, parts, **changes):
    """A set of one shard per (split, images, labels)."""
    store = Store(path)
    shards = [
        write_shard(store, f"{split}-{i}.parquet", columns_of(images, labels), split)
        for i, (split, images, labels) in enumerate(parts)
    ]
    settings = {"kind": "real", "classes": CLASSES, "resolution": 16, "channels": 1} | changes
    Manifest.of(shards, **settings).save(store)
    return store


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 1, 16, 16), dtype=np.uint8)


@pytest.fixture
def labels():
    return np.array([0, 1, 0, 1, 1, 0])


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read(tmp_path, labels, channels):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (6, channels, 16, 16), dtype=np.uint8)
    soft = rng.dirichlet([1, 1], 6).astype(np.float32)
    columns = columns_of(images, labels) | {"soft_label": list(soft)}
    store = Store(tmp_path)
    entry = write_shard(store, "a.parquet", columns, "train")
    manifest = Manifest.of([entry], kind="real", classes=CLASSES, resolution=16, channels=channels)
    manifest.save(store)

    read = read_images([store.url], "train")

    np.testing.assert_array_equal(read.images, images)
    np.testing.assert_array_equal(read.labels, labels)
    np.testing.assert_array_equal(read.soft_labels, soft)
    assert read.groups == ("p0", "p1", "p2", "p3", "p4", "p5")
    assert read.sources[5] == "s5"
    assert read.classes == CLASSES
    assert read.digest == manifest.digest
    assert manifest.counts == {
        "train": {"ill": 3, "well": 3},
        "val": {"ill": 0, "well": 0},
        "test": {"ill": 0, "well": 0},
    }
    assert Manifest.load(store) == manifest


def test_sets_are_concatenated_and_splits_kept_apart(tmp_path, images, labels):
    real = write_set(
        tmp_path / "real", [("train", images[:2], labels[:2]), ("test", images[2:4], labels[2:4])]
    )
    synthetic = write_set(
        tmp_path / "synthetic", [("train", images[4:], labels[4:])], kind="synthetic"
    )

    train = read_images([real.url, synthetic.url], "train")
    test = read_images([real.url, synthetic.url], "test")
    everything = read_images([real.url])

    np.testing.assert_array_equal(train.images, images[[0, 1, 4, 5]])
    np.testing.assert_array_equal(test.images, images[2:4])
    assert len(everything) == 4


@pytest.mark.parametrize(
    "packing", [{"compression": "zstd", "compression_level": 1}, {"compression": "lz4"}, {}]
)
def test_shards_packed_in_other_ways_are_read_alike(tmp_path, packing):
    """More images than are unpacked at a time, in row groups that cut across such batches."""
    images = np.random.default_rng(2).integers(0, 256, (150, 1, 256, 256), dtype=np.uint8)
    labels = np.arange(150) % 2
    store = write_set(tmp_path, [("train", images, labels)], resolution=256)
    file = tmp_path / "train-0.parquet"
    pq.write_table(pq.read_table(file), file, row_group_size=47, **packing)
    data, manifest = file.read_bytes(), Manifest.load(store)
    sha256 = hashlib.sha256(data).hexdigest()
    entry = dataclasses.replace(manifest.shards[0], bytes=len(data), sha256=sha256)
    dataclasses.replace(manifest, shards=(entry,)).save(store)

    read = read_images([store.url])

    np.testing.assert_array_equal(read.images, images)
    np.testing.assert_array_equal(read.labels, labels)
    assert read.sources[149] == "s149"


def test_digest_depends_on_content_alone(tmp_path, images, labels):
    def digest(name, parts):
        return Manifest.load(write_set(tmp_path / name, parts)).digest

    one = digest("one", [("train", images, labels)])
    shuffled = [5, 3, 1, 0, 2, 4]
    many = digest(
        "many",
        [
            ("train", images[shuffled[:2]], labels[shuffled[:2]]),
            ("train", images[shuffled[2:]], labels[shuffled[2:]]),
        ],
    )
    changed = images.copy()
    changed[3, 0, 5, 5] ^= 1

    assert one == many
    assert one != digest("pixel", [("train", changed, labels)])
    assert one != digest("label", [("train", images, 1 - labels)])
    assert one != digest("split", [("test", images, labels)])
    assert one != digest("fewer", [("train", images[:5], labels[:5])])


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_flipped_byte_is_found_and_named(tmp_path, images, labels, place):
    store = write_set(tmp_path, [("train", images, labels)])
    file = tmp_path / "train-0.parquet"
    data = bytearray(file.read_bytes())
    data[round(place * (len(data) - 1))] ^= 0x10
    file.write_bytes(data)

    with pytest.raises(DataError, match=r"train-0\.parquet.*--overwrite"):
        read_images([store.url], "train")


def test_no_flipped_byte_changes_what_readers_of_some_columns_get(tmp_path, images, labels):
    store, name = write_set(tmp_path, [("train", images, labels)]), "train-0.parquet"
    file, found = tmp_path / name, 0
    column = pq.ParquetFile(file).metadata.row_group(0).column(SCHEMA.names.index("class_index"))
    whole = file.read_bytes()
    for place in range(column.total_compressed_size):
        data = bytearray(whole)
        data[column.data_page_offset + place] ^= 1
        file.write_bytes(data)
        try:
            table = store.read_columns(name, ["class_index"])
        except DataError as error:
            assert name in str(error)
            found += 1
        else:  # in what no value depends on
            assert table["class_index"].to_pylist() == labels.tolist()
    assert found > column.total_compressed_size / 2


def test_missing_files_are_named(tmp_path, images, labels):
    with pytest.raises(DataError, match=r"manifest\.json.*gemix prepare"):
        read_images([str(tmp_path / "nowhere")])
    store = write_set(tmp_path, [("train", images, labels)])
    (tmp_path / "train-0.parquet").unlink()
    with pytest.raises(DataError, match=r"train-0\.parquet"):
        read_images([store.url])


def test_sets_that_do_not_fit_are_refused(tmp_path, images, labels):
    one = write_set(tmp_path / "one", [("train", images, labels)])
    other = write_set(tmp_path / "other", [("train", images, labels)], classes=("well", "sick"))
    with pytest.raises(DataError, match=r"other.*\['well', 'sick'\].*one"):
        read_images([one.url, other.url])
    with pytest.raises(DataError, match=r"no image of split 'val'.*val_fraction"):
        read_images([one.url], "val")


def test_classes_in_another_order_are_matched_by_name(tmp_path, images, labels):
    one = write_set(tmp_path / "one", [("train", images, labels)])
    other = write_set(tmp_path / "other", [("train", images, labels)], classes=CLASSES[::-1])
    both = read_images([one.url, other.url], "train")
    assert both.classes == CLASSES
    assert (both.labels == np.concatenate([labels, 1 - labels])).all()
    assert (both.soft_labels.argmax(axis=1) == both.labels).all()
    own, ours = read_images([other.url], "train"), read_images([other.url], "train", CLASSES)
    assert (own.labels == labels).all() and (ours.labels == 1 - labels).all()
    # equal numbers of other classes are another content
    assert own.digest == read_images([one.url]).digest != ours.digest
    assert ours.digest == Manifest.load(other).content_digest("train", CLASSES)


def test_an_unknown_schema_version_is_refused(tmp_path, images, labels):
    store = write_set(tmp_path, [("train", images, labels)])
    tree = store.read_json(MANIFEST)
    store.write_json(MANIFEST, tree | {"schema_version": 99})
    with pytest.raises(DataError, match="version 99"):
        Manifest.load(store)
    store.write_json(MANIFEST, {"schema_version": 1})
    with pytest.raises(DataError, match="not a manifest"):
        Manifest.load(store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"soft_label": [[0.5, 0.4]] * 6}, r"row 0.*does not sum to 1"),
        ({"soft_label": [[1.5, -0.5]] * 6}, "non-negative"),
        ({"soft_label": [[float("nan"), 1.0]] * 6}, "non-negative"),
        ({"class_index": [0, 1, 2, 0, 1, 0]}, "class index outside 0 to 1"),
    ],
)
def test_bad_labels_are_not_written(tmp_path, images, labels, change, message):
    columns = columns_of(images, labels) | change
    with pytest.raises(DataError, match=message):
        write_shard(Store(tmp_path), "a.parquet", columns, "train")
    assert not list(tmp_path.iterdir())


def test_the_file_is_plain_parquet_of_the_documented_schema(tmp_path, images, labels):
    store = Store(tmp_path)
    columns = columns_of(images, labels, seeds=range(6), generator="abc")
    entry = write_shard(store, "a.parquet", columns, "train")

    data = (tmp_path / "a.parquet").read_bytes()
    table = pq.read_table(pa.BufferReader(data))

    assert table.schema.equals(SCHEMA)
    assert all(field.metadata[b"description"] for field in SCHEMA)
    assert table["image"][1].as_py() == images[1].tobytes()
    assert table["seed"].to_pylist() == list(range(6))
    assert entry.sha256 == hashlib.sha256(data).hexdigest()
    assert (entry.rows, entry.bytes, entry.class_counts) == (6, len(data), (3, 3))
