"""compare: what was planted is found, and nothing where nothing is shared."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from gemix.data.config import DataConfig
from gemix.data.image_set import ImageSet
from gemix.data.leakage import near_duplicates as near
from gemix.data.leakage.compare_sets import compare_sets, overlap_sheet
from gemix.data.leakage.perceptual_hash import distance, fingerprint
from gemix.data.preprocessing.preprocess import preprocess
from gemix.data.scan import Scan


def textures(seed, count, side=64, channels=1):
    """Smooth random pictures, none like another: uint8 [count, channels, side, side]."""
    noise = np.random.default_rng(seed).normal(size=(count, channels, side, side))
    smooth = gaussian_filter(noise, (0, 0, side / 12, side / 12), mode="wrap")
    return np.clip(smooth / smooth.std() * 50 + 128, 20, 235).astype(np.uint8)


def image_set(images, prefix, groups=None):
    count = len(images)
    return ImageSet(
        images=images,
        labels=np.zeros(count, np.int64),
        soft_labels=np.ones((count, 1), np.float32),
        groups=tuple(groups or (f"{prefix}-patient-{i}" for i in range(count))),
        sources=tuple(f"{prefix}-{i}" for i in range(count)),
        classes=("any",),
        digest=prefix,
    )


CHANGES = {
    "shift": lambda image: np.roll(image, 1, axis=-1),
    "brightness": lambda image: image + np.uint8(20),
    "contrast": lambda image: (image * 0.7 + 30).astype(np.uint8),
    "noise": lambda image: np.clip(
        image + np.random.default_rng(5).normal(0, 10, image.shape), 0, 255
    ).astype(np.uint8),
}


@pytest.fixture
def one():
    return image_set(textures(1, 40), "one")


def test_independent_sets_share_nothing(one):
    overlap = compare_sets(one, image_set(textures(2, 60), "other"))
    assert not overlap
    assert (overlap.shared_groups, overlap.exact, overlap.near, overlap.worst) == ((), 0, 0, ())
    assert overlap.images == (40, 60)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("channels", [1, 3])
def test_planted_near_duplicates_are_found_and_no_others(change, channels):
    images = textures(1, 40, channels=channels)
    other = textures(2, 60, channels=channels)
    other[[7, 50]] = CHANGES[change](images[[3, 39]])
    overlap = compare_sets(image_set(images, "one"), image_set(other, "other"))
    assert overlap
    assert (overlap.exact, overlap.near) == (0, 2)
    assert {pair.sources for pair in overlap.worst} == {
        ("one-3", "other-7"),
        ("one-39", "other-50"),
    }
    for pair in overlap.worst:
        assert 0.95 <= pair.similarity <= 1 and pair.bits <= 10 and not pair.identical


def test_exact_duplicates_are_not_near_ones_and_come_first(one):
    other = textures(2, 60)
    other[20] = CHANGES["brightness"](one.images[9])
    other[[4, 5]] = one.images[8]
    overlap = compare_sets(one, image_set(other, "other"), splits=(["train"] * 40, ["test"] * 60))
    assert (overlap.exact, overlap.near) == (2, 1)
    assert [pair.sources for pair in overlap.worst] == [
        ("one-8", "other-4"),
        ("one-8", "other-5"),
        ("one-9", "other-20"),
    ]
    assert [pair.identical for pair in overlap.worst] == [True, True, False]
    assert overlap.worst[0].similarity == 1
    assert overlap.worst[0].groups == ("one-patient-8", "other-patient-4")
    assert overlap.worst[0].splits == ("train", "test")


def test_the_nearest_is_shown_whatever_block_it_is_in(one, monkeypatch):
    images = one.images.copy()
    other = textures(2, 23)
    images[11] = CHANGES["noise"](other[19])
    images[30] = CHANGES["brightness"](other[19])
    images[39] = CHANGES["shift"](other[19])
    for block in (4, 7, 2048):
        monkeypatch.setattr(near, "_BLOCK", block)
        overlap = compare_sets(image_set(images, "one"), image_set(other, "other"))
        assert overlap.near == 1
        assert [pair.sources for pair in overlap.worst] == [("one-30", "other-19")]


def test_no_more_than_the_worst_twelve_are_kept(one):
    overlap = compare_sets(one, image_set(CHANGES["noise"](one.images), "other"))
    assert overlap.near == 40
    similarities = [pair.similarity for pair in overlap.worst]
    assert len(similarities) == 12 and similarities == sorted(similarities, reverse=True)


def test_another_size_is_near_and_flat_images_only_if_the_same(one):
    small = np.stack(
        [np.asarray(Image.fromarray(image[0]).resize((48, 48)))[None] for image in one.images[:5]]
    )
    assert compare_sets(one, image_set(small, "small")).near == 5
    black, grey = np.zeros((1, 1, 64, 64), np.uint8), np.full((1, 1, 64, 64), 90, np.uint8)
    assert not compare_sets(image_set(black, "black"), image_set(grey, "grey"))
    assert compare_sets(image_set(black, "black"), image_set(black, "same")).exact == 1
    flat = image_set(np.zeros((1, 1, 32, 128), np.uint8), "wide")
    assert not compare_sets(image_set(black, "black"), flat)


def test_shared_groups(one):
    made_up = ["run-00ff17a2b3c4d5e6", "any/block-01"]
    groups = ["one-patient-3", *made_up, "ONE-patient-4", *(f"q{i}" for i in range(56))]
    first = image_set(one.images, "one", groups=[*one.groups[:38], *made_up])
    other = image_set(textures(2, 60), "other", groups=groups)
    overlap = compare_sets(first, other)
    assert overlap and overlap.shared_groups == ("one-patient-3",)
    together = compare_sets(first, other, same_source=True)
    assert together.shared_groups == ("any/block-01", "one-patient-3", "run-00ff17a2b3c4d5e6")


def test_the_sheet_shows_every_pair_of_all_comparisons(one):
    twin = image_set(CHANGES["noise"](one.images[:5]), "other")
    found, nothing = compare_sets(one, twin), compare_sets(one, image_set(textures(2, 9), "third"))
    sheet = Image.open(io.BytesIO(overlap_sheet([found, nothing, found])))
    assert sheet.format == "PNG"
    assert sheet.size == (3 * 264, 4 * 172)  # ten pairs in rows of three
    pixels = np.asarray(sheet)
    np.testing.assert_array_equal(
        pixels[44:172, :128],
        np.asarray(Image.fromarray(found.worst[0].thumbnails[0]).resize((128, 128))),
    )
    assert Image.open(io.BytesIO(overlap_sheet([nothing]))).size[0] == 3 * 264


def test_fingerprints_count_bits_and_correlate(one):
    prints = fingerprint(one.images[:, 0])
    assert prints.hashes.dtype == np.uint64 and prints.copies.shape == (40, 256)
    np.testing.assert_allclose((prints.copies**2).sum(axis=1), 1, rtol=1e-5)
    assert [int(n).bit_count() for n in prints.hashes] == [32] * 40  # half lie above the median
    zero, ones = np.uint64(0), np.uint64(2**64 - 1)
    assert (distance(zero, ones), distance(zero, np.uint64(5))) == (64, 2)
    many = np.tile(one.images, (30, 1, 1, 1))  # more than are taken at a time
    np.testing.assert_array_equal(fingerprint(many).hashes, np.tile(prints.hashes, 30))


def test_real_slices_of_different_diagnosis_are_not_near(shared):
    folder = shared("data/iq-oth-nccd")
    sets = []
    for kind in ("Malignant cases", "Normal cases"):
        files = sorted(
            (folder / kind).glob("*.jpg"), key=lambda f: int(re.findall(r"\d+", f.name)[0])
        )[::4]
        config = DataConfig(resolution=128)
        scans = [np.asarray(Image.open(file).convert("L")) for file in files]
        images = [preprocess(Scan(pixels=scan, is_hounsfield=False), config) for scan in scans]
        sets.append(image_set(np.stack(images), kind))
    assert not compare_sets(*sets)
    moved = image_set(np.roll(sets[0].images, (1, 1), (2, 3)), "moved")
    assert compare_sets(sets[0], moved).near > 0.97 * len(moved)
