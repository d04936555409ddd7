"""verify: every kind of damage is named, and none is found in a whole set."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gemix.core.errors import DataError
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.shards.schema import to_columns, write_shard
from gemix.data.shards.verify import Finding, verify
from gemix.io.storage import Store

SHARDS = {"train-0.parquet": "train", "train-1.parquet": "train", "val-0.parquet": "val"}


def columns_of(start, count=4):
    rng = np.random.default_rng(start)
    labels = np.arange(count) % 2
    return to_columns(
        rng.integers(0, 256, (count, 1, 16, 16), dtype=np.uint8),
        np.eye(2)[labels],
        class_index=labels,
        patients=[f"p{start + i}" for i in range(count)],
        sources=[f"s{start + i}" for i in range(count)],
    )


def write_set(url, **changed_columns):
    """Three shards; a keyword names a column and the shard to change it in, and its values."""
    store, entries = Store(url), []
    for index, (name, split) in enumerate(SHARDS.items()):
        columns = columns_of(10 * index)
        for column, (shard, values) in changed_columns.items():
            if shard == name:
                columns[column] = values
        entries.append(write_shard(store, name, columns, split))
    settings = {"kind": "real", "classes": ("ill", "well"), "resolution": 16, "channels": 1}
    Manifest.of(entries, **settings).save(store)
    return store


def change_entry(store, name, **changes):
    """Another manifest that says something else of one shard, and is consistent in itself."""
    manifest = Manifest.load(store)
    entries = [
        dataclasses.replace(shard, **changes) if shard.name == name else shard
        for shard in manifest.shards
    ]
    settings = {"kind": "real", "classes": manifest.classes, "resolution": 16, "channels": 1}
    Manifest.of(entries, **settings).save(store)


def rewrite(store, name, table):
    """Another table in a shard's place, with an entry of the right size and SHA-256."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data = sink.getvalue().to_pybytes()
    store.write_bytes(name, data)
    digest = hashlib.sha256(data).hexdigest()
    change_entry(store, name, bytes=len(data), sha256=digest)


def read(store, name):
    return pq.read_table(pa.BufferReader(store.read_bytes(name)))


def test_a_whole_set_has_no_findings(tmp_path, bucket):
    for url in (str(tmp_path), f"{bucket}/set"):
        store = write_set(url)
        store.write_bytes("contact_sheet.png", b"not the manifest's business")
        found = verify(store)
        assert found.findings == ()
        assert found.manifest.images() == 12


def test_all_damage_is_named_not_the_first_alone(tmp_path):
    store = write_set(tmp_path)
    store.delete("train-0.parquet")
    data = store.read_bytes("train-1.parquet")
    store.write_bytes("train-1.parquet", data[:-7])
    store.write_bytes("val-0.parquet", b"x" * len(store.read_bytes("val-0.parquet")))
    store.write_bytes("val-9.parquet", b"left over")

    findings = verify(store).findings

    assert Finding("train-0.parquet", "missing") in findings
    assert Finding("val-9.parquet", "the manifest does not know this file") in findings
    problems = [finding.problem for finding in findings if finding.file == "train-1.parquet"]
    assert problems[0] == f"{len(data) - 7} bytes, the manifest says {len(data)}"
    assert "not a readable Parquet file" in problems[1]
    problems = [finding.problem for finding in findings if finding.file == "val-0.parquet"]
    assert problems[0] == "its SHA-256 is not the manifest's"


def test_a_flipped_bit_anywhere_is_found_and_never_ends_the_search(tmp_path):
    store = write_set(tmp_path)
    data = store.read_bytes("train-0.parquet")
    rng = np.random.default_rng(0)
    for place in [0, len(data) - 1, *rng.integers(0, len(data), 60)]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        store.write_bytes("train-0.parquet", bytes(damaged))
        findings = verify(store).findings
        assert Finding("train-0.parquet", "its SHA-256 is not the manifest's") == findings[0]
        assert {finding.file for finding in findings} == {"train-0.parquet"}


def test_text_that_is_none_does_not_end_the_search(tmp_path):
    store = write_set(tmp_path)
    data = store.read_bytes("train-0.parquet")
    store.write_bytes("train-0.parquet", data.replace(b"channels", b"chann\x99ls"))
    store.delete("val-0.parquet")
    findings = verify(store).findings
    assert [finding.file for finding in findings] == ["train-0.parquet"] * 2 + ["val-0.parquet"]
    assert "'utf-8' codec" in findings[1].problem


def test_images_that_fail_their_checksum_are_named(tmp_path):
    columns = columns_of(10)
    pixels = columns["image"]
    store = write_set(tmp_path, image=("train-1.parquet", [pixels[1], pixels[0], *pixels[2:]]))
    assert verify(store).findings == (
        Finding("train-1.parquet", "images whose bytes differ from their checksum: s10, s11"),
    )


def test_images_of_another_shape_are_named(tmp_path):
    store = write_set(tmp_path, height=("train-1.parquet", [16, 8, 16, 16]))
    assert verify(store).findings == (
        Finding("train-1.parquet", "images of another shape than (1, 16, 16): s11"),
    )


def test_another_schema_and_another_length_are_named(tmp_path):
    store = write_set(tmp_path)
    rewrite(store, "train-0.parquet", read(store, "train-0.parquet").drop_columns(["source"]))
    rewrite(store, "train-1.parquet", read(store, "train-1.parquet").slice(0, 3))
    text = "\n".join(f"{f.file}: {f.problem}" for f in verify(store).findings)
    assert "train-0.parquet: not of the shard schema" in text
    assert "train-1.parquet: 3 rows, the manifest says 4" in text
    assert "train-1.parquet: images by class (2, 1), the manifest says (2, 2)" in text
    assert "train-1.parquet: its rows do not give the content digest" in text


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"class_counts": (3, 1)}, "images by class (2, 2), the manifest says (3, 1)"),
        ({"content": "0" * 64}, "its rows do not give the content digest of the manifest"),
        ({"split": "test"}, "rows of split val, the manifest says test"),
    ],
)
def test_an_entry_that_says_something_else_is_named(tmp_path, changes, problem):
    store = write_set(tmp_path)
    change_entry(store, "val-0.parquet", **changes)
    assert verify(store).findings == (Finding("val-0.parquet", problem),)


def test_a_changed_label_changes_the_content(tmp_path):
    store = write_set(tmp_path)
    table = read(store, "train-0.parquet")
    labels = pa.array([[0.5, 0.5]] * 4, table.schema.field("soft_label").type)
    index = table.schema.get_field_index("soft_label")
    table = table.set_column(index, table.schema.field("soft_label"), labels)
    rewrite(store, "train-0.parquet", table)
    assert verify(store).findings == (
        Finding("train-0.parquet", "its rows do not give the content digest of the manifest"),
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda tree: tree["counts"]["train"].update(ill=99), "'ill': 99"),
        (lambda tree: tree.update(digest="f" * 64), "content digest ffff"),
        (lambda tree: tree["shards"][0].update(split="tests"), "another split"),
        (lambda tree: tree["shards"][0].update(class_counts=[4]), "number of classes"),
        (lambda tree: tree["shards"].append(tree["shards"][0]), "more than once: train-0.parquet"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_named(tmp_path, change, problem):
    store = write_set(tmp_path)
    tree = store.read_json(MANIFEST)
    change(tree)
    store.write_json(MANIFEST, tree)
    problems = [found.problem for found in verify(store).findings if found.file == MANIFEST]
    assert any(problem in text for text in problems), problems


def test_a_group_in_two_splits_is_named_with_its_files(tmp_path):
    store = write_set(tmp_path, patient=("val-0.parquet", ["p11", "q", "p12", "p11"]))
    assert verify(store).findings == (
        Finding("train-1.parquet, val-0.parquet", "groups in train and val: p11, p12"),
    )


def test_no_manifest_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"manifest\.json.*gemix prepare"):
        verify(Store(tmp_path))
