from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from gemix.core.config_schema import InvalidConfig
from gemix.data.config import DataConfig, PhantomConfig
from gemix.data.phantom import CLASSES, render_slice
from gemix.data.preprocessing.body import body_mask, bounding_box
from gemix.data.preprocessing.decode import decode_image
from gemix.data.preprocessing.preprocess import preprocess
from gemix.data.preprocessing.windows import apply_window
from gemix.data.scan import InvalidImageError, Scan, ScanFiltered

CONFIG = DataConfig(resolution=64)


def grey(pixels, box=None):
    return Scan(pixels=pixels.astype(np.uint8), is_hounsfield=False, box=box)


@pytest.fixture(scope="module")
def phantom_slices():
    config = PhantomConfig()
    return [render_slice(config, CLASSES[i % 3], i, i % 6, 192) for i in range(18)]


def test_the_window_maps_its_ends_to_black_and_white():
    hounsfield = np.array([[-2000, -1200, -500, 200, 3000]], dtype=np.float32)
    assert apply_window(hounsfield, -500, 1400).tolist() == [[0, 0, 128, 255, 255]]


@pytest.mark.parametrize("resolution", [16, 64, 256])
def test_the_result_is_a_grey_square(phantom_slices, resolution):
    scan = Scan(pixels=phantom_slices[0], is_hounsfield=True)
    image = preprocess(scan, DataConfig(resolution=resolution))
    assert image.shape == (1, resolution, resolution)
    assert image.dtype == np.uint8


@pytest.mark.parametrize("as_grey", [False, True])
def test_the_phantoms_table_goes_and_the_body_stays(phantom_slices, as_grey):
    for pixels in phantom_slices:
        if as_grey:
            pixels = apply_window(pixels, -500, 1400)
            threshold, body_value = None, 130
        else:
            threshold, body_value = -400.0, -300
        left, top, right, bottom = bounding_box(body_mask(pixels, threshold))
        # the rows of the box that are mostly body reach its ends; the table's two boards do not
        filled = (pixels[top:bottom, left:right] > body_value).mean(axis=1)
        assert filled[2:-5].min() > 0.05
        assert (pixels[bottom + 3 :] > body_value).mean() < 0.08
        assert 0.6 < (right - left) / 192 <= 1.0
        assert (bottom - top) / (right - left) > 0.55


def test_what_is_outside_the_body_is_background(phantom_slices):
    image = preprocess(Scan(pixels=phantom_slices[0], is_hounsfield=True), CONFIG)[0]
    corners = np.stack([image[:5, :5], image[:5, -5:], image[-5:, :5], image[-5:, -5:]])
    assert np.ptp(corners.astype(int)) <= 12
    assert abs(np.median(corners.astype(int)) - 36) <= 4  # air in this window


def test_a_given_box_is_kept_in_shape():
    pixels = np.zeros((100, 120))
    pixels[20:60, 10:90] = 200  # the box itself: 80 wide, 40 high
    image = preprocess(grey(pixels, (10, 20, 90, 60)), CONFIG)[0]
    assert (image[18:46] > 150).all()
    assert (image[:14] < 50).all()
    assert (image[-14:] < 50).all()


@pytest.mark.parametrize(
    "box", [(0, 0, 121, 50), (0, 0, 50, 101), (-1, 0, 50, 50), (50, 0, 50, 50), (60, 0, 50, 50)]
)
def test_a_box_outside_the_image_is_refused(box):
    pixels = np.arange(12000).reshape(100, 120) % 256
    with pytest.raises(InvalidImageError, match=r"does not fit the image of 120 x 100 pixels"):
        preprocess(grey(pixels, box), CONFIG)


def test_a_blank_image_is_refused():
    with pytest.raises(InvalidImageError, match="blank: 99% of its pixels have greys from 7 to 7"):
        preprocess(grey(np.full((64, 64), 7)), CONFIG)


def test_a_speck_does_not_hide_that_an_image_is_blank():
    pixels = np.zeros((64, 64))
    pixels[30, 30] = 1
    with pytest.raises(InvalidImageError, match=r"^blank"):
        preprocess(grey(pixels), CONFIG)
    pixels[30, 30] = 255
    with pytest.raises(InvalidImageError, match=r"^blank"):
        preprocess(grey(pixels), CONFIG)


@pytest.mark.parametrize("minimum", [0, 0.1])
@pytest.mark.parametrize("value", [-1024, 40, 3000])
def test_a_blank_slice_of_a_volume_is_left_out_as_blank(value, minimum):
    """Padding of one value, of any height; a threshold for lungs does not change the rule."""
    config = DataConfig(resolution=64, min_lung_fraction=minimum)
    pixels = np.full((48, 64), value, np.float32)
    with pytest.raises(ScanFiltered, match=r"^blank$"):
        preprocess(Scan(pixels=pixels, is_hounsfield=True), config)


def test_a_slice_that_the_windows_leave_of_one_grey_is_blank(phantom_slices):
    scan = Scan(pixels=phantom_slices[0] + 2500, is_hounsfield=True)
    with pytest.raises(ScanFiltered, match=r"^blank$"):
        preprocess(scan, CONFIG)
    dark = Scan(pixels=phantom_slices[0] - 3000, is_hounsfield=True)
    with pytest.raises(ScanFiltered, match=r"^blank$"):
        preprocess(dark, CONFIG)
    some = DataConfig(resolution=64, windows=("lung", "mediastinal", "2500/1400"))
    assert preprocess(scan, some)[2].std() > 10


def test_where_there_is_no_body_the_whole_frame_is_kept():
    pixels = np.random.default_rng(0).integers(0, 20, (128, 128))
    pixels[60:66, 60:66] = 255
    assert body_mask(pixels.astype(np.uint8)).all()


def test_more_specks_than_16_bits_can_count_are_no_body():
    pixels = np.zeros((512, 4096), dtype=np.uint8)
    for row, column in np.ndindex(2, 2):
        pixels[row::4, column::4] = 255
    assert body_mask(pixels).all()


def test_fine_stripes_do_not_alias():
    """Stripes one pixel wide average to grey; a resize that drops pixels shows bands."""
    pixels = np.zeros((512, 512))
    pixels[:, ::2] = 255
    image = preprocess(grey(pixels, (0, 0, 512, 512)), CONFIG)[0]
    assert np.ptp(image[:, 4:-4].astype(int)) <= 4


def test_real_scans_lose_their_table(shared):
    """The table is the lowest thing in these scans; cropped, the lowest fifth is body."""
    folder = shared("data/iq-oth-nccd")
    bottoms, kept = [], []
    for path in sorted(folder.glob("*/*.jpg"))[::40]:
        pixels = decode_image(path.read_bytes())
        if pixels.shape != (512, 512):
            continue
        left, top, right, bottom = bounding_box(body_mask(pixels))
        bright = np.flatnonzero((pixels > 60).sum(axis=1) > 3)
        bottoms.append(bright[-1] - bottom)
        kept.append((right - left) * (bottom - top) / pixels.size)
    assert len(bottoms) >= 10
    assert np.median(bottoms) > 20  # the cut is well above the table's lower edge
    assert min(kept) > 0.15
    assert np.mean(kept) < 0.75


def test_real_scans_of_every_size_become_squares(shared):
    folder = shared("data/iq-oth-nccd")
    by_size = {}
    for path in folder.glob("*/*.jpg"):
        with Image.open(path) as image:
            by_size.setdefault(image.size, path)
    assert len(by_size) > 1
    for path in by_size.values():
        image = preprocess(grey(decode_image(path.read_bytes())), CONFIG)
        assert image.shape == (1, 64, 64)
        assert image.std() > 10


def test_three_windows_make_three_channels(phantom_slices):
    scan = Scan(pixels=phantom_slices[0], is_hounsfield=True)
    windows = ("lung", "mediastinal", "-600/1500")
    image = preprocess(scan, DataConfig(resolution=64, windows=windows))
    assert image.shape == (3, 64, 64)
    for channel, window in zip(image, windows, strict=True):
        alone = preprocess(scan, DataConfig(resolution=64, windows=(window,)))
        np.testing.assert_array_equal(channel, alone[0])
    assert not np.array_equal(image[0], image[1])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"windows": ("lungs",)}, r"windows\.0: given 'lungs', allowed: lung, mediastinal, bone"),
        ({"windows": ("40/0",)}, r"windows\.0: given '40/0'"),
        ({"windows": ("lung", "bone")}, "one window or three"),
        ({"windows": ("lung", "bone", "40/400"), "source": "folder", "path": "x"}, "grey images"),
    ],
)
def test_windows_that_cannot_be_are_named(settings, text):
    with pytest.raises(InvalidConfig, match=text):
        DataConfig(**settings)


def test_the_cut_is_what_plain_steps_give(phantom_slices):
    """Mask, crop, pad to a square and resize at once, as one would write it down."""
    for number, hounsfield in enumerate(phantom_slices[:6]):
        pixels = apply_window(hounsfield, -500, 1400)[:, : 192 - 20 * number]
        mask = body_mask(pixels)
        left, top, right, bottom = bounding_box(mask)
        background = int(np.median(pixels[~mask])) if not mask.all() else 0
        body = np.where(mask, pixels, np.uint8(background))[top:bottom, left:right]
        height, width = body.shape
        side = max(body.shape)
        down, across = (side - height) // 2, (side - width) // 2
        around = ((down, side - height - down), (across, side - width - across))
        square = Image.fromarray(np.pad(body, around, constant_values=background))
        plain = np.asarray(square.resize((64, 64), Image.Resampling.LANCZOS))
        np.testing.assert_array_equal(preprocess(grey(pixels), CONFIG)[0], plain)


def test_the_boxes_of_real_scans_stay_as_they_were(shared):
    """Recorded before the search was made quicker, with SciPy's own morphology."""
    boxes = [
        bounding_box(body_mask(decode_image(path.read_bytes())))
        for path in sorted(shared("data/iq-oth-nccd").glob("*/*.jpg"))[::60]
    ]
    digest = hashlib.sha256(repr(boxes).encode()).hexdigest()
    assert digest[:32] == "2ff9d84672195d9d8df4085f65281f3d"


@pytest.mark.parametrize("side", [200, 512, 1100])
def test_the_mask_is_as_convex_and_as_large_as_the_body(side):
    """The search reduces the frame; the mask is not in steps of it."""
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    body = (rows / 0.3) ** 2 + (columns / 0.4) ** 2 < 1
    lungs = (rows / 0.2) ** 2 + ((np.abs(columns) - 0.18) / 0.12) ** 2 < 1
    mask = body_mask(np.where(body & ~lungs, 160, 0).astype(np.uint8))
    assert (mask & ~body).mean() < 0.01
    assert (body & ~mask).mean() < 0.001
    crossings = np.count_nonzero(np.diff(mask.astype(np.int8), axis=1), axis=1)
    assert set(crossings) <= {0, 2}


@pytest.mark.parametrize("window", [(-500, 1400), (40, 400), (400, 1800)])
def test_air_around_and_a_circular_field_of_view_move_nothing(phantom_slices, window):
    pixels = apply_window(phantom_slices[0], *window)
    box = np.array(bounding_box(body_mask(np.pad(pixels, 64, constant_values=pixels[0, 0]))))
    rows, columns = np.mgrid[:320, :320] - 159.5
    round_view = np.pad(pixels, 64, constant_values=pixels[0, 0])
    round_view[rows**2 + columns**2 > 150**2] = 0
    assert np.abs(np.array(bounding_box(body_mask(round_view))) - box).max() <= 4
    assert box.min() >= 64 - 4
    assert box.max() <= 256 + 4


def test_what_is_solid_in_a_body_of_speckle_does_not_stand_for_it():
    """Under some windows muscle is speckle, and only heart, spine and ribs are solid."""
    rows, columns = np.mgrid[:512, :512] - 255.5
    speckle = np.random.default_rng(0).random((512, 512)) < 0.4
    pixels = np.where(((rows / 160) ** 2 + (columns / 220) ** 2 < 1) & speckle, 120, 0)
    pixels[(np.abs(rows) < 20) & (np.abs(columns) < 190)] = 200
    pixels[(np.abs(rows) < 140) & (np.abs(columns) < 20)] = 200
    box = np.array(bounding_box(body_mask(pixels.astype(np.uint8))))
    assert np.abs(box - [36, 96, 476, 416]).max() <= 4


@pytest.mark.parametrize("height", [510, 511, 512, 513])
def test_odd_sizes_shift_nothing(phantom_slices, height):
    """The search halves the frame, and again what is solid in it."""
    hounsfield = np.kron(phantom_slices[0], np.ones((3, 3), np.float32))
    pixels = apply_window(hounsfield, -500, 1400)
    whole = bounding_box(body_mask(pixels))
    _, top, _, bottom = whole
    assert bottom - top < 500
    first = (top + bottom - height) // 2
    part = bounding_box(body_mask(pixels[first : first + height, 1:]))
    assert np.abs(np.subtract(whole, part) - [1, first, 1, first]).max() <= 4
