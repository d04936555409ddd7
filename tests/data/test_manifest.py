"""A manifest that was edited or damaged is refused: by itself, or by the shards."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gemix.core.errors import DataError
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.shards.partial_reading import read_rows
from gemix.data.shards.reading import read_images
from gemix.data.shards.schema import to_columns, write_shard
from gemix.data.shards.verify import verify
from gemix.io.storage import Store

REMEDY = "restore it from a copy, or write the set again with --overwrite"


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "set")
    labels = np.array([0, 0, 1])
    entries = []
    for split in ("train", "test"):
        columns = to_columns(
            np.random.default_rng(0).integers(0, 255, (3, 1, 8, 8), dtype=np.uint8),
            np.eye(2)[labels],
            class_index=labels,
            patients=[f"{split}-{number}" for number in range(3)],
            sources=["1.png", "2.png", "3.png"],
        )
        name = f"{split}-00000.parquet"
        entries.append(write_shard(store, name, columns, split, ("ill", "well")))
    Manifest.of(entries, kind="real", classes=("ill", "well"), resolution=8, channels=1).save(store)
    return store


def edit(store: Store, change) -> None:
    tree = store.read_json(MANIFEST)
    change(tree)
    store.write_json(MANIFEST, tree)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("classes"), "field classes is missing"),
        (lambda t: t.update(classes="ill"), "field classes: 'ill'; wanted: a list"),
        (lambda t: t.update(classes=["ill", 3]), "field classes: 3 among its values"),
        (lambda t: t.update(resolution="8"), "field resolution: '8'; wanted: a whole number"),
        (lambda t: t.update(resolution=True), "field resolution: True"),
        (lambda t: t.update(shards={}), "field shards: {}; wanted: a list"),
        (lambda t: t.update(shards=[5]), "field shards.0: 5; wanted: an object"),
        (lambda t: t["shards"][1].pop("rows"), "field shards.1.rows is missing"),
        (lambda t: t["shards"][1].update(rows="many"), "field shards.1.rows: 'many'"),
        (lambda t: t["shards"][0].update(rows=-1), "field shards.0.rows: -1"),
        (lambda t: t["shards"][0].update(content="zz"), "field shards.0.content: 'zz'"),
        (lambda t: t["shards"][0].update(class_counts=[2, "x"]), "shards.0.class_counts: 'x'"),
        (lambda t: t.update(counts=[]), "field counts"),
        (lambda t: t["counts"].update(train=3), "field counts.train: 3; wanted: an object"),
        (lambda t: t.update(colour=1), "field colour is not known"),
        (lambda t: t["counts"]["train"].update(ill=3), "counts .*the shards add up to"),
        (lambda t: t.update(classes=["well", "ill"]), "counts .*the shards add up to"),
        (lambda t: t.update(classes=["ill", "ill"]), "has a duplicate name"),
        (lambda t: t.update(digest="0" * 64), "content digest 000"),
        (lambda t: t["shards"][0].update(rows=4), "4 rows and class_counts .* do not fit"),
        (lambda t: t["shards"][0].update(split="all"), "split all"),
    ],
)
def test_an_edited_manifest_is_refused_with_the_field(store, change, message):
    edit(store, change)
    with pytest.raises(DataError, match=rf"{MANIFEST}: .*{message}") as caught:
        Manifest.load(store)
    assert REMEDY in str(caught.value)


@pytest.mark.parametrize("length", [0, 10, 300])
def test_half_a_manifest_is_refused(store, length):
    store.write_bytes(MANIFEST, store.read_bytes(MANIFEST)[:length])
    with pytest.raises(DataError, match=rf"{MANIFEST}: not valid JSON.*{REMEDY}"):
        Manifest.load(store)


def swap_names(tree):
    """Exchange the names of the classes everywhere in the manifest."""
    text = json.dumps(tree).replace('"ill"', '"x"').replace('"well"', '"ill"')
    tree.update(json.loads(text.replace('"x"', '"well"')))


def swap_counts(tree):
    """Exchange the counts of the classes everywhere in the manifest."""
    for counts in tree["counts"].values():
        counts.update(ill=counts["well"], well=counts["ill"])
    for shard in tree["shards"]:
        shard["class_counts"].reverse()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap_names, r"written for the classes \['ill', 'well'\], but .* names \['well', 'ill'\]"),
        (swap_counts, r"images by class \(2, 1\), but class_counts in .* is \(1, 2\)"),
    ],
)
def test_a_manifest_that_contradicts_the_shards_is_refused(store, change, message):
    edit(store, lambda tree: tree["counts"].pop("val"))
    edit(store, lambda tree: tree["counts"].update(val={"ill": 0, "well": 0}))
    edit(store, change)
    manifest = Manifest.load(store)
    with pytest.raises(DataError, match=rf"train-00000\.parquet: {message}; restore"):
        read_images([store.url], "train")
    with pytest.raises(DataError, match=message):
        read_rows(store, manifest, manifest.shards[0], np.arange(2))
    assert len(verify(store).findings) == 2


def test_shards_of_earlier_versions_name_no_classes(store):
    entries = [
        write_shard(
            store,
            "train-00000.parquet",
            to_columns(
                np.zeros((1, 1, 8, 8), np.uint8),
                [[1.0, 0.0]],
                class_index=[0],
                patients=["p"],
                sources=["1.png"],
            ),
            "train",
        )
    ]
    Manifest.of(entries, kind="real", classes=("new", "names"), resolution=8, channels=1).save(
        store
    )
    assert read_images([store.url], "train").classes == ("new", "names")
