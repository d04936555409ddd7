from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gemix.data.dataset_card.contact_sheet import before_thumbnail, contact_sheet, thumbnail
from gemix.data.scan import Scan
from gemix.data.sources.folder import FolderSource

PAPER = 255


def decode(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def pair(before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.full((128, 128), grey, np.uint8) for grey in (before, after))


def levels_of(sheet: np.ndarray) -> set[int]:
    """The grey levels that whole tiles have."""
    levels, counts = np.unique(sheet, return_counts=True)
    return set(levels[counts >= 128 * 128].tolist()) - {PAPER}


def test_of_many_pairs_six_are_spread_from_the_first_to_the_last():
    pairs = [pair(10 + i, 130 + i) for i in range(101)]
    shown = levels_of(decode(contact_sheet({"a": pairs})))
    assert shown == {10 + i for i in range(0, 101, 20)} | {130 + i for i in range(0, 101, 20)}


def test_before_stands_left_of_after():
    sheet = decode(contact_sheet({"a": [pair(60, 200)]}))
    columns = [np.flatnonzero((sheet == grey).sum(axis=0) >= 128) for grey in (60, 200)]
    assert [len(found) for found in columns] == [128, 128]
    assert columns[0].max() < columns[1].min()


def test_classes_stand_below_each_other_in_their_order():
    sheet = decode(contact_sheet({"b": [pair(60, 61)], "empty": [], "a": [pair(90, 91)]}))
    first, second = (np.flatnonzero((sheet == grey).any(axis=1)).max() for grey in (60, 90))
    assert second - first > 2 * 128  # the class without an image keeps its row


def test_an_image_that_is_not_square_keeps_its_shape():
    tall = np.full((128, 64), 60, np.uint8)
    found = decode(contact_sheet({"a": [(tall, tall)]})) == 60
    assert (found.sum(axis=0) >= 128).sum() == 2 * 64
    assert (found.sum(axis=1) >= 64).sum() == 128


@pytest.mark.parametrize("name", ["正常", "سليم", "gesund/bösartig", "a\nb\t", "\udcff", "", "🫁"])
def test_a_name_that_the_font_cannot_draw_does_not_stop_the_sheet(name):
    sheet = decode(contact_sheet({name: [pair(60, 61)]}))
    assert levels_of(sheet) == {60, 61}


def test_accents_are_dropped_and_other_letters_become_question_marks():
    def sheet(name: str) -> bytes:
        return contact_sheet({name: [pair(60, 61)]})

    assert sheet("bösartig") == sheet("bosartig") != sheet("b")
    assert sheet("正常") == sheet("??")


def test_a_long_name_is_cut_to_the_width_of_the_page():
    long, longer = (decode(contact_sheet({"x" * n: [pair(60, 61)]})) for n in (300, 400))
    assert (long == longer).all()
    assert (long[:, -6:] == PAPER).all()


def test_table_and_air_and_body_differ_in_what_came_of_hounsfield_units():
    hounsfield = [-1024, -850, -500, -100, 40, 200]  # air, lung, foam, fat, muscle, soft bone
    pixels = np.repeat(np.array(hounsfield, np.float32), 128)[None].repeat(256, axis=0)
    small = before_thumbnail(Scan(pixels=pixels, is_hounsfield=True))
    assert small.dtype == np.uint8 and small.shape == (43, 128)
    middles = small[20, 10::21][: len(hounsfield)].astype(int)
    assert (np.diff(middles) >= 15).all()
    assert middles[0] < 40 and middles[-1] < 255


def test_grey_scans_are_shown_as_they_are():
    pixels = np.arange(64 * 48, dtype=np.uint32).reshape(64, 48).astype(np.uint8)
    assert (before_thumbnail(Scan(pixels=pixels, is_hounsfield=False)) == pixels).all()


def test_the_thumbnail_of_a_prepared_image_is_its_first_channel():
    image = np.stack([np.full((256, 256), grey, np.uint8) for grey in (7, 8, 9)])
    small = thumbnail(image)
    assert small.shape == (128, 128) and (small == 7).all()


def test_a_real_scan_is_seen_whole(shared):
    source = FolderSource(str(shared("data/iq-oth-nccd")))
    scan = source.load(source.list().items[0])
    small = before_thumbnail(scan)
    height, width = scan.pixels.shape
    assert max(small.shape) == 128
    assert small.shape[0] / small.shape[1] == pytest.approx(height / width, rel=0.02)
    assert small.mean() == pytest.approx(scan.pixels.mean(), abs=2)
