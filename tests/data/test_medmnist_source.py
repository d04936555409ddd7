from __future__ import annotations

import io
import json
import pickle
import tracemalloc
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemix.core.errors import DataError
from gemix.data.config import DataConfig
from gemix.data.prepare import prepare_serial
from gemix.data.shards.reading import read_images
from gemix.data.sources.medmnist.source import MedMnistSource
from gemix.io.storage import Store
from tests.data.listings import undated

SIZES = {"train": 9, "val": 6, "test": 6}
MEBIBYTES = 32  # of zeros in an archive of less than one


def arrays(height=20, width=28, classes=3):
    """The six arrays, labels 0, 1, 2, 0, 1, 2, … and no two images alike."""
    rng = np.random.default_rng(0)
    made = {}
    for split, count in SIZES.items():
        made[f"{split}_images"] = rng.integers(0, 256, (count, height, width), dtype=np.uint8)
        made[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % classes)[:, None]
    return made


@pytest.fixture
def save(tmp_path):
    """Writes an .npz file of `arrays()` with changes, None to leave one out; gives its path."""

    def write(base=None, names=None, **changes):
        made = {k: v for k, v in ((base or arrays()) | changes).items() if v is not None}
        np.savez_compressed(tmp_path / "organ.npz", **made)
        if names is not None:
            (tmp_path / "organ.json").write_text(json.dumps(names))
        return str(tmp_path / "organ.npz")

    return write


def test_items_keep_label_split_and_pixels(save):
    path = save()
    source = MedMnistSource(path)
    listing = source.list()
    assert listing.classes == ("0", "1", "2")
    assert [item.class_index for item in listing.items] == [0] * 7 + [1] * 7 + [2] * 7
    assert [item.key for item in listing.items][:4] == [
        "train/000000",
        "train/000003",
        "train/000006",
        "val/000000",
    ]
    for item in listing.items:
        split, _, index = item.key.partition("/")
        scan = source.load(item)
        np.testing.assert_array_equal(scan.pixels, arrays()[f"{split}_images"][int(index)])
        assert (item.split, item.group) == (split, None)
        assert int(index) % 3 == item.class_index
        assert scan.pixels.dtype == np.uint8
        assert not scan.is_hounsfield
        assert scan.box == item.box == (0, 0, 28, 20)


def test_what_holds_for_every_source(save):
    source = MedMnistSource(save())
    listing = source.list()
    assert len({item.key for item in listing.items}) == len(listing.items) == listing.listed == 21
    assert source.list() == listing
    assert pickle.loads(pickle.dumps(source)).list() == listing
    assert any("patients are not known" in note for note in listing.notes)


def test_official_splits_come_through_the_whole_preparation(save, tmp_path):
    source = MedMnistSource(save())
    config = DataConfig(source="medmnist", path="unused", resolution=16)
    manifest = prepare_serial(source, config, Store(str(tmp_path / "out")))
    assert {split: manifest.images(split) for split in SIZES} == SIZES
    for split in SIZES:
        sources = read_images([str(tmp_path / "out")], split).sources
        assert all(key.startswith(f"{split}/") for key in sources)


def test_folds_keep_neighbours_that_look_alike_together(make_folder, tmp_path):
    root = make_folder(a=60, b=60)
    looks = {
        name: [Image.open(root / name / f"slice {i + 1}.png") for i in range(60)] for name in "ab"
    }
    made, first = {}, {"train": 0, "val": 36, "test": 48}
    for split, end in (("train", 36), ("val", 48), ("test", 60)):
        chosen = [image for name in "ab" for image in looks[name][first[split] : end]]
        made[f"{split}_images"] = np.stack(chosen)
        made[f"{split}_labels"] = np.repeat([0, 1], len(chosen) // 2)
    np.savez(tmp_path / "chest.npz", **made)
    config = DataConfig(source="medmnist", path="unused", resolution=32, folds=4)
    source, out = MedMnistSource(str(tmp_path / "chest.npz")), str(tmp_path / "out")
    assert prepare_serial(source, config, Store(out)).images() == 120
    splits_of = defaultdict(set)
    for split in SIZES:
        for key in read_images([out], split).sources:
            official, _, index = key.partition("/")
            splits_of[official, int(index) // 2].add(split)  # every two files are one body's
    assert len(splits_of) == 60
    assert all(len(splits) == 1 for splits in splits_of.values())


@pytest.mark.parametrize(
    "names", [["liver", "spleen", "heart"], {"2": "heart", "0": "liver", "1": "spleen"}]
)
def test_names_come_from_the_json_file_beside(save, names):
    assert MedMnistSource(save(names=names)).list().classes == ("liver", "spleen", "heart")


def test_a_named_class_without_an_image_is_left_out(save):
    path = save(names=["a", "b", "c", "d"])
    listing = MedMnistSource(path).list()
    assert listing.classes == ("a", "b", "c")
    assert any("no image of class d" in note for note in listing.notes)


def test_flat_labels_of_any_integer_type_are_read(save):
    made = arrays()
    flat = {k: v.reshape(-1).astype(np.int64) for k, v in made.items() if k.endswith("labels")}
    path = save()
    expected = MedMnistSource(path).list()
    assert undated(MedMnistSource(save(made | flat)).list()) == undated(expected)


def test_labels_with_a_gap_keep_their_own_names(save):
    made = arrays()
    labels = {k: v * 2 for k, v in made.items() if k.endswith("labels")}
    listing = MedMnistSource(save(made | labels)).list()
    assert listing.classes == ("0", "2", "4")
    assert {item.class_index for item in listing.items} == {0, 1, 2}


def test_colour_of_equal_channels_is_grey_and_true_colour_is_refused(save):
    made = arrays()
    grey = made["val_images"]
    colour = np.repeat(grey[..., None], 3, axis=3)
    source = MedMnistSource(save(val_images=colour))
    item = next(item for item in source.list().items if item.key == "val/000004")
    np.testing.assert_array_equal(source.load(item).pixels, grey[4])
    colour[5, 3, 3, 2] ^= 1
    with pytest.raises(DataError, match=r"val_images is uint8.*channels differ.*one channel"):
        MedMnistSource(save(val_images=colour)).list()


def test_the_file_is_read_once_and_not_pickled(save, tmp_path):
    source = MedMnistSource(save())
    small = len(pickle.dumps(source))
    items = source.list().items
    assert len(pickle.dumps(source)) == small
    copy = pickle.loads(pickle.dumps(source))
    (tmp_path / "organ.npz").unlink()
    first = source.load(items[0]).pixels
    first[:] = 0
    assert source.load(items[0]).pixels.any()
    with pytest.raises(DataError, match=r"organ\.npz: no such file"):
        copy.load(items[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_labels": None}, r"no array val_labels \(found train_images, .*test_labels\)"),
        ({"test_images": np.zeros((5, 20, 28), np.uint8)}, "5 test_images but 6 test_labels"),
        ({"val_images": np.zeros((6, 20, 28))}, r"val_images is float64 \[6, 20, 28\]; wanted"),
        ({"val_images": np.zeros((6, 20, 28, 28), np.uint8)}, r"val_images is uint8 \[6, 20, 28, "),
        ({"val_images": np.zeros((6, 8, 28), np.uint8)}, "val_images .*sides from 16 to 8192"),
        ({"val_labels": np.zeros((6, 14), np.uint8)}, r"val_labels is uint8 \[6, 14\]: several"),
        ({"val_labels": np.zeros(6)}, r"val_labels is float64 \[6\]; wanted: integers"),
        ({"val_labels": np.uint8(3)}, r"val_labels is uint8 \[\]; wanted: integers"),
        ({"val_labels": np.full(6, -1)}, "val_labels .*label -1; labels count from 0"),
        (
            {"val_labels": np.array([0] * 6, object)},
            r"val_labels is object \[6\]; wanted: integers",
        ),
        ({"val_labels": np.full(6, 7)}, "train_labels has no image of class 7"),
    ],
)
def test_arrays_that_do_not_fit_are_named(save, changes, message):
    with pytest.raises(DataError, match=message):
        MedMnistSource(save(**changes)).list()


def test_one_class_is_not_enough(save):
    with pytest.raises(DataError, match="only one class, '0'"):
        MedMnistSource(save(arrays(classes=1))).list()
    empty = {name: array[:0] for name, array in arrays().items()}
    with pytest.raises(DataError, match="no image in any split"):
        MedMnistSource(save(empty)).list()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b"], r"label 2, but organ\.json names only 2"),
        (["a", "b", "b"], "two classes have the same name"),
        ({"0": "a", "1": "b", "3": "c"}, r"organ\.json: wanted a list of class names"),
        (["a", "b", 3], r"organ\.json: wanted a list of class names"),
        ([], r"organ\.json: wanted a list"),
        ("abc", r"organ\.json: wanted a list"),
    ],
)
def test_names_that_do_not_fit_are_refused(save, names, message):
    path = save(names=names)
    with pytest.raises(DataError, match=message):
        MedMnistSource(path).list()


def test_a_file_that_is_no_npz_is_named(save, tmp_path):
    with pytest.raises(DataError, match=r"'scans': one \.npz file"):
        MedMnistSource("scans")
    with pytest.raises(DataError, match=r"none\.npz: no such file"):
        MedMnistSource(str(tmp_path / "none.npz")).list()
    path = tmp_path / "organ.npz"
    np.save(path.with_suffix(".npy"), np.zeros(3))
    for data in (b"", b"x" * 100, path.with_suffix(".npy").read_bytes()):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"organ\.npz: no \.npz file, or a truncated one"):
            MedMnistSource(str(path)).list()
    data = bytearray((tmp_path / save().rpartition("/")[2]).read_bytes())
    data[2000:2100] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"array train_images cannot be read"):
        MedMnistSource(str(path)).list()


def claim(shape, descr="|u1", version=(1, 0)) -> bytes:
    """The head of an array, whatever follows it."""
    head = io.BytesIO()
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    version = f"{version[0]}_{version[1]}"
    getattr(np.lib.format, f"write_array_header_{version}")(head, fields)
    return head.getvalue()


def replace_member(path, name: str, head: bytes, zeros: int, method=zipfile.ZIP_DEFLATED) -> None:
    """Puts another array of that name into the archive: its head and so many MiB of zeros."""
    with zipfile.ZipFile(path) as archive:
        others = {n: archive.read(n) for n in archive.namelist() if n != f"{name}.npy"}
    with zipfile.ZipFile(path, "w", method) as archive:
        for other, data in others.items():
            archive.writestr(other, data)
        with archive.open(f"{name}.npy", "w") as member:
            member.write(head)
            for _ in range(zeros):
                member.write(bytes(2**20))


def assert_refused(path, message: str) -> None:
    """…and that in a few MiB of memory."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"organ\.npz: .*{message}"):
            MedMnistSource(str(path)).list()
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "head", "message"),
    [
        ("val_images", claim((128, 512, 512)), "33554432 bytes packed into .* 1/100;"),
        ("val_images", claim((6, 20, 28)), r", 3360 bytes, but the archive says 33\d+;"),
        ("val_images", claim((2**40, 512, 512)), r"uint8 \[1099511627776, 512, 512\],"),
        ("val_images", claim((-1, 20, 28)), "val_images .*; wanted: grey images"),
        ("val_images", claim((1, 9000, 9000)), "val_images .*; sides from 16 to 8192"),
        ("val_images", claim((6, 20, 28), "<f8"), "val_images is float64"),
        ("val_images", claim((6, 20, 28), version=(2, 0)), r"val_images .*version \(2, 0\)"),
        ("val_images", b"", r"val_images cannot be read .*magic"),
        ("val_labels", claim((2**23,), "<i8"), "6 val_images but 8388608 val_labels"),
        ("val_labels", claim((6,), "|S9999999"), "val_labels .*; wanted: integers"),
    ],
)
def test_an_array_that_is_not_what_it_says_is_not_unpacked(save, name, head, message):
    path = save()
    replace_member(path, name, head, MEBIBYTES)
    assert_refused(path, message)


@pytest.mark.parametrize(("zeros", "problem"), [(1, ".*CRC.*"), (0, "it ends too early")])
def test_the_end_of_an_array_is_where_the_archive_says(save, zeros, problem):
    path, head = Path(save()), claim((6, 20, 28))
    replace_member(path, "val_images", head, zeros)
    data, whole, wanted = path.read_bytes(), len(head) + zeros * 2**20, len(head) + 6 * 20 * 28
    at = data.rindex(whole.to_bytes(4, "little"))  # in the directory at the end of the file
    path.write_bytes(data[:at] + wanted.to_bytes(4, "little") + data[at + 4 :])
    assert_refused(path, rf"val_images cannot be read \({problem}\)")


def test_packing_that_has_no_limit_is_refused(save):
    path = save()
    replace_member(path, "val_images", claim((6, 20, 28)), 1, zipfile.ZIP_LZMA)
    assert_refused(path, "train_images cannot be read .*packed by method 14")


def test_arrays_in_the_order_of_fortran_are_read(save):
    images = np.asfortranarray(arrays()["val_images"])
    source = MedMnistSource(save(val_images=images))
    item = next(item for item in source.list().items if item.key == "val/000004")
    np.testing.assert_array_equal(source.load(item).pixels, images[4])


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["", "deep/er/"])
def test_a_bucket_is_the_same_as_a_disk(save, bucket, folder):
    path = Path(save(names=["liver", "spleen", "heart"]))
    for file in (path, path.with_suffix(".json")):
        Store(bucket).write_bytes(f"{folder}{file.name}", file.read_bytes())
    local, remote = MedMnistSource(str(path)), MedMnistSource(f"{bucket}/{folder}organ.npz")
    listing = local.list()
    assert undated(remote.list()) == undated(listing)
    item = listing.items[-1]
    np.testing.assert_array_equal(remote.load(item).pixels, local.load(item).pixels)
