"""Layouts of class folders: splits on the first level, masks and thumbnails among the images."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from PIL import Image

from gemix.core.errors import DataError
from gemix.data.config import DataConfig
from gemix.data.prepare import QUARANTINE, prepare_serial
from gemix.data.prepare.segmentation_masks import is_segmentation_mask
from gemix.data.sources.folder import FolderSource
from gemix.data.sources.folder_names import is_hidden, split_of
from gemix.io.storage import Store


def body(seed: int) -> np.ndarray:
    """An image that no other one resembles: uint8 [48, 48]."""
    blocks = np.random.default_rng(seed).integers(90, 240, (8, 8), dtype=np.uint8)
    return np.pad(blocks.repeat(5, axis=0).repeat(5, axis=1), 4)


@pytest.fixture
def write(tmp_path):
    """Write images, each of a patient of its own, or those given."""
    root, written = tmp_path / "scans", []

    def write(*names: str, pixels=None):
        for name in names:
            written.append(name)
            image = body(len(written)) if pixels is None else pixels
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / name)
        return root

    return write


def splits_of(root) -> dict[str, str | None]:
    return {item.key: item.split for item in FolderSource(str(root)).list().items}


def prepared(root, tmp_path, **settings):
    config = DataConfig(source="folder", path=str(root), resolution=32, **settings)
    store = Store(tmp_path / "out")
    return prepare_serial(FolderSource(str(root)), config, store), store


MASK = np.where(np.hypot(*np.mgrid[-48:48, -48:48]) < 30, 255, 0).astype(np.uint8)


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "valid", "test"),
        ("Training", "Validation", "Testing"),
        ("training_set", "val_set", "test_set"),
        ("train-images", "dev", "test-images"),
        ("imagesTr", "imagesVa", "imagesTs"),
        ("TRAIN", "VAL", "TEST"),
        ("Train data", "Validation data", "Test data"),
    ],
)
def test_folders_of_splits_hold_the_classes(write, train, val, test):
    assert (split_of(train), split_of(val), split_of(test)) == ("train", "val", "test")
    root = write(f"{train}/a/1.png", f"{train}/b/1.png", f"{val}/a/1.png", f"{test}/b/deep/1.png")
    listing = FolderSource(str(root)).list()
    assert listing.classes == ("a", "b")
    assert splits_of(root) == {
        f"{train}/a/1.png": "train",
        f"{train}/b/1.png": "train",
        f"{val}/a/1.png": "val",
        f"{test}/b/deep/1.png": "test",
    }
    assert [item.class_index for item in listing.items] == [0, 0, 1, 1]
    assert any("splits (train, val, test) taken" in note for note in listing.notes)


@pytest.mark.parametrize(
    "name", ["normal", "trainee", "testis", "valve", "ts", "images", "contest"]
)
def test_other_names_are_no_splits(name):
    assert split_of(name) is None


def test_splits_of_folders_are_kept(write, tmp_path):
    names = [
        f"{split}/{label}/{number}.png"
        for split, count in (("train", 6), ("valid", 2), ("test", 3))
        for label in ("covid", "normal")
        for number in range(count)
    ]
    manifest, _ = prepared(write(*names), tmp_path)
    assert {split: [*counts.values()] for split, counts in manifest.counts.items()} == {
        "train": [6, 6],
        "val": [2, 2],
        "test": [3, 3],
    }
    assert "official splits kept" in manifest.origin["notes"]


def test_splits_beside_classes_are_refused(write):
    root = write("train/a/1.png", "train/b/1.png", "test/a/1.png", "covid/1.png")
    with pytest.raises(
        DataError, match=r"'test', 'train' are named as splits, but 'covid'.*rename"
    ):
        FolderSource(str(root)).list()


def test_a_class_that_is_held_out_alone_is_refused(write):
    """As in a public collection whose training folders are named after stages of the tumour."""
    root = write("train/adeno_T2/1.png", "train/normal/1.png", "test/adeno/1.png")
    with pytest.raises(DataError, match=r"'adeno' of the split test is not in the training split"):
        FolderSource(str(root)).list()


def test_splits_without_class_folders_are_named(write):
    root = write("imagesTr/1.png", "imagesTs/2.png")
    with pytest.raises(DataError, match=r"no class folders.*inside its folder of the split"):
        FolderSource(str(root)).list()


def test_an_empty_class_of_all_splits_is_named(write):
    root = write("train/a/1.png", "train/b/1.png", "test/a/1.png")
    (root / "test" / "b").mkdir()
    assert len(splits_of(root)) == 3
    (root / "test" / "c").mkdir()
    with pytest.raises(DataError, match=r"test/c: no image in this class folder \(it is empty\)"):
        FolderSource(str(root)).list()


@pytest.mark.parametrize(
    "folder", ["masks", "Labels", "lung masks", "ground_truth", "infection-mask"]
)
def test_folders_of_masks_beside_images_are_left_out(write, folder):
    root = write("a/images/1.png", "b/images/1.png", f"a/{folder}/1.png", f"b/{folder}/x/1.png")
    listing = FolderSource(str(root)).list()
    assert [item.key for item in listing.items] == ["a/images/1.png", "b/images/1.png"]
    assert any("left out 2 images in folders of segmentation masks" in n for n in listing.notes)


def test_folders_of_masks_beside_files_or_of_splits_are_left_out(write):
    root = write("train/a/1.png", "train/b/1.png", "train/b/mask/1.png", "labelsTr/a/1.png")
    assert set(splits_of(root)) == {"train/a/1.png", "train/b/1.png"}


def test_a_class_may_be_named_like_masks(write):
    root = write("labels/1.png", "normal/1.png", "masks/2.png")
    assert FolderSource(str(root)).list().classes == ("labels", "masks", "normal")
    root = write("images/1.png")
    assert FolderSource(str(root)).list().classes == ("images", "normal")


def test_masks_are_left_out_by_their_pixels(write, tmp_path):
    images = [f"{label}/{number}.png" for label in "ab" for number in range(10)]
    root = write(*images)
    write(*(f"{label}/{number}_m.png" for label in "ab" for number in range(5)), pixels=MASK)
    write("a/colour.png", pixels=np.dstack([MASK // 2] * 3))
    write("b/one_bit.png", pixels=MASK > 0)
    manifest, store = prepared(root, tmp_path)
    assert manifest.images() == 20
    assert manifest.origin["left_out"] == {"mask": 12}
    assert store.read_json(QUARANTINE) == []
    assert any("left out 12 images of two grey levels" in n for n in manifest.origin["notes"])
    assert "segmentation masks (two grey levels)" in store.read_bytes("CARD.md").decode()


def test_masks_are_told_from_scans(grey_slices, tmp_path):
    assert is_segmentation_mask(MASK) and is_segmentation_mask(MASK // 255 + 3)
    for quality in (50, 75, 95):
        Image.fromarray(MASK).save(tmp_path / "mask.jpg", quality=quality)
        assert is_segmentation_mask(np.asarray(Image.open(tmp_path / "mask.jpg")))
    resized = Image.fromarray(MASK.repeat(4, 0).repeat(4, 1)).resize((200, 200))
    assert is_segmentation_mask(np.asarray(resized))
    assert not is_segmentation_mask(np.full((16, 16), 7, np.uint8))
    assert not any(map(is_segmentation_mask, grey_slices))
    assert not any(is_segmentation_mask(np.where(one > 128, 250, one)) for one in grey_slices)
    noise = np.random.default_rng(0).normal(0, 5, MASK.shape)
    bimodal = np.clip(60.0 + MASK * 0.6 + noise, 0, 255).astype(np.uint8)
    assert not is_segmentation_mask(bimodal)


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir/1.png/SYNOPHOTO_THUMB_XL.jpg",
        "a/@eaDir/x.png",
        "a/.thumbnails/x.png",
        "a/Thumbs.db",
        "a/thumbnails/x.jpg",
        "a/SYNOPHOTO_THUMB_M.jpg",
        "#recycle/x.png",
        "a/@Recycle/x.png",
        "a/.@__thumb/x.png",
        "$RECYCLE.BIN/x.png",
        "__MACOSX/a/x.png",
    ],
)
def test_thumbnails_and_files_of_the_system_are_hidden(name, write):
    assert is_hidden(name)
    root = write("a/1.png", "b/1.png")
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b"x")
    assert FolderSource(str(root)).list().classes == ("a", "b")
    assert len(FolderSource(str(root)).list().items) == 2


def test_two_spellings_of_one_class_name_in_unicode_are_one_class(write):
    composed, decomposed = (unicodedata.normalize(form, "Lungenödem") for form in ("NFC", "NFD"))
    assert composed != decomposed
    root = write("a/1.png", f"{composed}/1.png", f"{decomposed}/2.png")
    listing = FolderSource(str(root)).list()
    assert listing.classes == ("a", composed)
    keys = {item.key for item in listing.items if item.class_index == 1}
    assert keys == {f"{composed}/1.png", f"{decomposed}/2.png"}
    for item in listing.items:
        FolderSource(str(root)).load(item)


def test_files_without_a_usable_name_count_for_their_class(write, tmp_path, misname):
    root = write(*(f"a/{n}.png" for n in range(100)), *(f"b/{n}.png" for n in range(10)))
    for number in range(3):
        misname(root / "b" / f"{number}.png")
    with pytest.raises(DataError, match=r"class 'b': 3 of 10 files are bad"):
        prepared(root, tmp_path)


def test_a_class_that_lost_more_than_the_limit_is_named(write, tmp_path):
    root = write(*(f"a/{n}.png" for n in range(100)), *(f"b/{n}.png" for n in range(10)))
    for number in range(3):
        (root / "b" / f"{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"class 'b': 3 of 10 files are bad, more than data\.max"):
        prepared(root, tmp_path)
