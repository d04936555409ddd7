from __future__ import annotations

import numpy as np
import pytest

from gemix.data.config import DataConfig, PhantomConfig
from gemix.data.phantom import CLASSES, render_slice
from gemix.data.preprocessing.body import body_mask
from gemix.data.preprocessing.decode import decode_image
from gemix.data.preprocessing.lungs import lung_fraction
from gemix.data.preprocessing.preprocess import preprocess
from gemix.data.preprocessing.windows import apply_window
from gemix.data.scan import Scan, ScanFiltered

SIZE = 192
AIR, LUNG, FAT, MUSCLE = -1000, -850, -100, 40  # HU
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE] - SIZE / 2 + 0.5
WINDOWS = [(-500, 1400), (-600, 1500), (40, 400), (400, 1800)]


def ellipse(tall, wide, across=0.0):
    return (ROWS / tall) ** 2 + ((COLUMNS - across) / wide) ** 2 < 1


BODY = ellipse(60, 85)


def chest(lungs):
    """A body of muscle in a coat of fat, with or without two lungs; float32 HU."""
    pixels = np.full((SIZE, SIZE), AIR, dtype=np.float32)
    pixels[BODY] = FAT
    pixels[ellipse(52, 77)] = MUSCLE
    if lungs:
        pixels[ellipse(40, 25, -35) | ellipse(40, 25, 35)] = LUNG
    return pixels + np.random.default_rng(0).normal(0, 10, pixels.shape).astype(np.float32)


SHARE = 2 * 40 * 25 / (60 * 85)


@pytest.mark.parametrize("lungs", [True, False])
def test_the_share_is_that_of_the_areas(lungs):
    share = lung_fraction(chest(lungs), BODY, is_hounsfield=True)
    assert share == pytest.approx(SHARE if lungs else 0, abs=0.01)


@pytest.mark.parametrize("lungs", [True, False])
@pytest.mark.parametrize("window", WINDOWS)
def test_it_is_the_same_in_a_windowed_image(window, lungs):
    grey = apply_window(chest(lungs), *window)
    share = lung_fraction(grey, BODY, is_hounsfield=False)
    assert share == pytest.approx(SHARE if lungs else 0, abs=0.02)


def test_a_circular_field_of_view_changes_nothing():
    pixels = chest(lungs=True)
    pixels[~ellipse(94, 94)] = -3024  # scanners pad with what no tissue has
    for grey in (False, True):
        image = apply_window(pixels, -500, 1400) if grey else pixels
        assert lung_fraction(image, BODY, not grey) == pytest.approx(SHARE, abs=0.01)


def test_air_open_to_the_outside_and_the_windpipe_are_no_lungs():
    pixels = chest(lungs=False)
    pixels[:80, 90:102] = AIR  # a cleft from above
    pixels[ellipse(4, 4, 30)] = AIR
    assert lung_fraction(pixels, BODY, is_hounsfield=True) == 0


def test_lungs_are_found_where_black_fat_joins_them_to_the_outside():
    """Under a bone window the muscle between two ribs may be black."""
    grey = apply_window(chest(lungs=True), 400, 1800)
    grey[90:100, :60] = 0
    assert lung_fraction(grey, BODY, is_hounsfield=False) == pytest.approx(SHARE, abs=0.06)


def test_dense_lungs_still_count():
    """Ground glass of pneumonia: brighter than lung, far darker than tissue."""
    pixels = chest(lungs=True)
    pixels[pixels < -700] += 200 * BODY[pixels < -700]
    grey = apply_window(pixels, -600, 1500)
    assert lung_fraction(grey, BODY, is_hounsfield=False) == pytest.approx(SHARE, abs=0.02)


def test_no_body_has_no_lungs():
    assert lung_fraction(chest(True), np.zeros((SIZE, SIZE), dtype=bool), is_hounsfield=True) == 0


def test_every_phantom_slice_has_lungs():
    for patient in range(6):
        pixels = render_slice(PhantomConfig(), CLASSES[patient % 3], patient, patient, SIZE)
        assert 0.15 < lung_fraction(pixels, body_mask(pixels, -400.0), True) < 0.5


def test_slices_with_too_little_lung_are_left_out_by_name_of_the_setting():
    config = DataConfig(resolution=32, min_lung_fraction=0.1)
    with_lungs = Scan(pixels=chest(True), is_hounsfield=True)
    without = Scan(pixels=chest(False), is_hounsfield=True)
    np.testing.assert_array_equal(
        preprocess(with_lungs, config), preprocess(with_lungs, DataConfig(resolution=32))
    )
    with pytest.raises(ScanFiltered, match="min_lung_fraction"):
        preprocess(without, config)
    preprocess(without, DataConfig(resolution=32))


def test_in_a_given_box_its_own_body_counts():
    """The second body in the frame, which has no lungs, lies outside the box."""
    pair = np.concatenate([chest(True), chest(False)], axis=1)
    config = DataConfig(resolution=32, min_lung_fraction=0.3)
    left, right = (0, 0, SIZE, SIZE), (SIZE, 0, 2 * SIZE, SIZE)
    preprocess(Scan(pixels=pair, is_hounsfield=True, box=left), config)
    with pytest.raises(ScanFiltered):
        preprocess(Scan(pixels=pair, is_hounsfield=True, box=right), config)


def test_real_slices_of_the_neck_and_of_the_lungs_are_told_apart(shared):
    """Three of the sample are above the lungs; the others are not, some with pneumonia."""
    shares = []
    for path in sorted(shared("data/covidx-ct-3a-sample").glob("3A_images/*.png")):
        pixels = decode_image(path.read_bytes())
        shares.append(lung_fraction(pixels, body_mask(pixels), is_hounsfield=False))
    shares = np.sort(shares)
    assert len(shares) == 18
    assert shares[2] < 0.02
    assert shares[3] > 0.1


def test_most_real_slices_under_a_bone_window_have_lungs(shared):
    paths = sorted(shared("data/iq-oth-nccd").glob("*/*.jpg"))[::20]
    images = [decode_image(path.read_bytes()) for path in paths]
    shares = [lung_fraction(grey, body_mask(grey), is_hounsfield=False) for grey in images]
    assert np.mean(np.array(shares) > 0.1) > 0.8
