from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gemix.core.errors import DataError
from gemix.data.config import DataConfig, PhantomConfig
from gemix.data.prepare import prepare_serial
from gemix.data.scan import InvalidImageError
from gemix.data.shards.reading import read_images
from gemix.data.sources import open_source
from gemix.data.sources.parquet.source import ParquetSource
from gemix.io.storage import Store
from tests.data.listings import undated
from tests.data.parquet_files import ROWS, columns, images, write


@pytest.fixture
def make(tmp_path) -> Callable[..., ParquetSource]:
    """One file of our columns, with changes, in row groups of 70."""

    def make(**changes) -> ParquetSource:
        write(tmp_path / "set" / "one.parquet", columns(**changes), row_group_size=70)
        return ParquetSource(str(tmp_path / "set"))

    return make


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A finished set of phantom images."""
    phantom = PhantomConfig(patients_per_class=4, slices_per_patient=2)
    config = DataConfig(resolution=32, phantom=phantom)
    root = tmp_path_factory.mktemp("prepared")
    prepare_serial(open_source(config), config, Store(root))
    return root


def test_rows_are_items_class_by_class(make, tmp_path):
    source = make()
    write(tmp_path / "set" / "deep" / "ten.PARQUET", columns(seed=1, patient=None, split=None))
    listing = source.list()
    assert listing.classes == ("normal", "tumour")
    assert len(listing.items) == listing.listed == 2 * ROWS
    assert [item.class_index for item in listing.items] == [0] * ROWS + [1] * ROWS
    by_key = {item.key: item for item in listing.items}
    assert by_key["one.parquet#row-000012"].group == "p1"
    assert by_key["one.parquet#row-000012"].class_index == 1
    assert by_key["deep/ten.PARQUET#row-000012"].group is None
    assert {item.box for item in listing.items} == {(0, 0, 24, 20)}


def test_pixels_come_back_as_they_were_in_any_order(make):
    source = make()
    items = list(source.list().items)
    for item in (*items, *reversed(items[::9])):
        row = int(item.key.rpartition("-")[2])
        scan = source.load(item)
        np.testing.assert_array_equal(scan.pixels, images(ROWS)[row])
        assert (scan.is_hounsfield, scan.box) == (False, (0, 0, 24, 20))


def test_splits_are_kept_and_empty_texts_are_none(make):
    splits = ["train", "test", "val", "", None] * (ROWS // 5)
    listing = make(split=splits, patient=["", "p"] * (ROWS // 2)).list()
    found = {int(item.key[-6:]): (item.split, item.group) for item in listing.items}
    assert [found[row] for row in range(5)] == [
        ("train", None), ("test", "p"), ("val", None), (None, "p"), (None, None)
    ]  # fmt: skip


def test_a_prepared_set_can_be_prepared_again(prepared, tmp_path):
    source, config = ParquetSource(str(prepared)), DataConfig(resolution=32)
    manifest = prepare_serial(source, config, Store(tmp_path / "again"))
    before, after = read_images([str(prepared)]), read_images([str(tmp_path / "again")])
    assert after.classes == before.classes
    assert manifest.origin["quarantined"] == 0

    def content(found):
        parts = zip(found.groups, found.labels, found.images, strict=True)
        return sorted((group, int(label), image.tobytes()) for group, label, image in parts)

    assert content(after) == content(before)
    for split in ("train", "val", "test"):
        assert manifest.images(split) == len(read_images([str(prepared)], split))


@pytest.mark.parametrize("made_up", ["run-0123456789abcdef", "normal/block-07"])
def test_groups_that_prepare_made_up_are_no_patients(make, made_up):
    assert make().list().group_kind == "patients"
    patients = [made_up, None, "p1", "run-0", "block-07"] * (ROWS // 5)
    assert make(patient=patients).list().group_kind == "groups of an earlier prepare"
    assert make(patient=[*patients[1:], None]).list().group_kind == "groups of an earlier prepare"
    patients = [None, "p1", "run-0", "block-07", f"{made_up} "] * (ROWS // 5)
    assert make(patient=patients).list().group_kind == "patients"


def test_volumes_of_a_prepared_set_stay_volumes(make_nifti, tmp_path):
    config = DataConfig(source="nifti", path=str(make_nifti()), resolution=32, val_fraction=0)
    prepare_serial(open_source(config), config, Store(tmp_path / "out"))
    assert ParquetSource(str(tmp_path / "out")).list().group_kind == "volumes"


def test_a_file_whose_name_is_no_text_is_named(make, tmp_path, misname):
    source = make()
    write(tmp_path / "set" / "two.parquet", columns())
    misname(tmp_path / "set" / "two.parquet")
    with pytest.raises(DataError, match=r"\\xfftwo\.parquet: its name is no UTF-8.*rename it"):
        source.list()


def test_files_that_the_manifest_does_not_name_are_left_out_and_missing_ones_told(
    prepared, tmp_path
):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    write(tmp_path / "stranger.parquet", columns())
    (tmp_path / "val-00000.parquet").unlink()
    whole = ParquetSource(str(prepared)).list()
    listing = ParquetSource(str(tmp_path)).list()
    assert listing.listed == whole.listed > len(listing.items)
    notes = "\n".join(listing.notes)
    assert "left out 1 files that manifest.json does not name" in notes
    assert "1 files that manifest.json names are not there" in notes


def test_rows_without_a_class_are_counted(make):
    listing = make(**{"class": [None, "a", "b", " ", "b"] * (ROWS // 5)}).list()
    assert listing.classes == ("a", "b")
    assert len(listing.items) == ROWS * 3 // 5
    assert listing.listed == ROWS
    assert f"left out {ROWS * 2 // 5} rows without a class" in listing.notes


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": None}, r"one\.parquet: no column image; found channels, height"),
        ({"width": None}, r"one\.parquet: no column width"),
        ({"class": None}, r"one\.parquet: no column class.*or class_index where a manifest"),
        ({"class": [0] * ROWS}, "column class holds int64; wanted: text"),
        ({"image": ["x"] * ROWS}, "column image holds string; wanted: bytes"),
        ({"height": [1.5] * ROWS}, "column height holds double; wanted: integers"),
        ({"height": [2**40] * ROWS}, "not in range"),
        ({"patient": [7] * ROWS}, "column patient holds int64; wanted: text"),
        (
            {"split": ["dev"] * ROWS},
            "column split holds 'dev'; wanted: train, val",
        ),
        ({"class": ["a"] * ROWS}, "only one class, 'a'"),
        ({"class": ["a", "A"] * (ROWS // 2)}, "'A' and 'a' differ in case or spaces alone"),
        ({"class": [""] * ROWS}, "no labelled image"),
    ],
)
def test_a_schema_that_cannot_be_used_is_named(make, changes, reason):
    with pytest.raises(DataError, match=reason):
        make(**changes).list()


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"x" * 400, None])
def test_files_that_are_damaged_are_counted_and_named(make, tmp_path, damage):
    source = make()
    whole = (tmp_path / "set" / "one.parquet").read_bytes()
    cut = whole[: len(whole) // 2] if damage is None else damage
    (tmp_path / "set" / "two.parquet").write_bytes(cut)
    message = r"1 of 2 Parquet files cannot be used \(two\.parquet: damaged.*move them away"
    with pytest.raises(DataError, match=message):
        source.list()


def test_places_without_parquet_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.*no such folder"):
        ParquetSource(str(tmp_path / "nowhere")).list()
    (tmp_path / "x.csv").write_text("x")
    with pytest.raises(DataError, match=r"no \.parquet file among 1 files"):
        ParquetSource(str(tmp_path)).list()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"channels": [3] * ROWS}, "3 channels; grey images"),
        ({"channels": [None] * ROWS}, "no value in channels, height or width"),
        ({"image": [None] * ROWS}, "no value in image"),
        ({"height": [21] * ROWS}, "480 bytes for 24 x 21 pixels"),
        ({"height": [-20] * ROWS, "width": [-24] * ROWS}, "-24 x -20 pixels; sides from 16"),
        ({"width": [9000] * ROWS}, "9000 x 20 pixels; sides from 16 to 8192"),
        ({"checksum": ["0" * 32] * ROWS}, "its bytes differ from its checksum 000"),
    ],
)
def test_a_row_that_cannot_be_used_is_a_bad_image(make, changes, reason):
    channels = changes.get("channels")
    if channels and channels[0] is None:
        changes = {"channels": pa.nulls(ROWS, pa.int32())}
    if changes.get("image"):
        changes = {"image": pa.nulls(ROWS, pa.binary())}
    source = make(**changes)
    with pytest.raises(InvalidImageError, match=reason):
        source.load(source.list().items[0])


def test_damaged_pixels_are_bad_images_and_other_row_groups_are_not(make, tmp_path):
    source = make(checksum=None)
    items = source.list().items
    path = tmp_path / "set" / "one.parquet"
    metadata = pq.ParquetFile(path).metadata
    chunk = metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + 400] = bytes(400)
    path.write_bytes(data)
    for item in items:
        row = int(item.key[-6:])
        if row < 70:
            with pytest.raises(InvalidImageError, match=r"damaged row group.*copy the file again"):
                source.load(item)
        else:
            np.testing.assert_array_equal(source.load(item).pixels, images(ROWS)[row])


def test_a_file_that_shrank_or_went_after_listing_is_a_bad_image(make, tmp_path):
    source = make()
    last = source.list().items[-1]
    write(tmp_path / "set" / "one.parquet", columns(count=10))
    with pytest.raises(InvalidImageError, match="only 10 rows now"):
        source.load(last)
    (tmp_path / "set" / "one.parquet").unlink()
    with pytest.raises(InvalidImageError, match=r"one\.parquet"):
        source.load(last)


def test_what_is_decoded_does_not_travel(make):
    source = make()
    before = len(pickle.dumps(source))
    source.load(source.list().items[0])
    assert len(pickle.dumps(source)) == before


def test_a_bucket_is_the_same_as_a_disk(make, bucket):
    local = make()
    remote = ParquetSource(f"{bucket}/set")
    remote.store.write_bytes("one.parquet", local.store.read_bytes("one.parquet"))
    listing = local.list()
    assert undated(remote.list()) == undated(listing)
    for item in listing.items[::40]:
        np.testing.assert_array_equal(remote.load(item).pixels, local.load(item).pixels)


def test_a_row_of_another_kind_does_not_cost_the_rows_beside_it(make):
    pixels = [image.tobytes() for image in images(ROWS)]
    pixels[3], pixels[5] = pixels[3] * 3, bytes(300 * 300)
    changes = {"channels": [1] * ROWS, "height": [20] * ROWS, "width": [24] * ROWS}
    changes["channels"][3], changes["height"][5], changes["width"][5] = 3, 10, 9000
    source = make(image=pixels, checksum=None, **changes)
    for item in source.list().items:
        row = int(item.key[-6:])
        if row in (3, 5):
            with pytest.raises(InvalidImageError, match=r"3 channels|9000 x 10"):
                source.load(item)
        else:
            np.testing.assert_array_equal(source.load(item).pixels, images(ROWS)[row])
