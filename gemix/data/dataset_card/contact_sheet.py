"""Contact sheet: scans of each class before and after preparation, on one page."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from gemix.core.png import encode_png
from gemix.data.preprocessing.windows import apply_window
from gemix.data.scan import Scan

CONTACT_SHEET = "contact_sheet.png"

_TILE = 128  # largest side of a thumbnail, pixels
_PAIRS = 6
_SEAM, _GAP = 2, 12  # between the two of a pair, between pairs
_TITLE, _FONT = 28, 16
_MARGIN = 8
_PAPER, _INK, _FRAME = 255, 0, 96
_PAIR = 2 * _TILE + _SEAM
_WIDTH = _PAIRS * (_PAIR + _GAP) - _GAP  # without the margins
_LEGEND = "Each pair: the whole scan as it came (left), the image prepared from it (right)."

_WIDE_WINDOW = -300.0, 1800.0
"""Level and width in HU: air is nearly black, and foam of the table, lung, fat and muscle differ;
of bone only the densest is white."""


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Shrink the first channel of uint8 [C, H, W]: uint8 [h, w], sides up to 128."""
    return _small(image[0])


def before_thumbnail(scan: Scan) -> np.ndarray:
    """Shrink the whole scan, table and air included: uint8 [h, w], sides up to 128.

    Hounsfield units are shown in a window of -1200 to 600; grey images are unchanged.
    """
    grey = apply_window(scan.pixels, *_WIDE_WINDOW) if scan.is_hounsfield else scan.pixels
    return _small(grey)


def contact_sheet(rows: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]) -> bytes:
    """Draw one titled row for each class, of up to 6 pairs spread evenly over those given, as PNG.

    A title is the number of the class and its name. The font has ASCII letters alone: accents are
    dropped, other letters become question marks.

    Args:
        rows: (before, after) pairs of thumbnails, uint8 [h, w], by class name.
    """
    height = _TITLE + _TILE
    size = _WIDTH + 2 * _MARGIN, _TITLE + len(rows) * height + 2 * _MARGIN
    page = Image.new("L", size, _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN), _LEGEND, fill=_INK, font=_font())
    for row, (name, pairs) in enumerate(rows.items()):
        top = _MARGIN + _TITLE + row * height
        empty = "" if pairs else ": no image"
        draw.text((_MARGIN, top + 4), _title(f"{row}  {name}{empty}"), fill=_INK, font=_font())
        chosen = np.linspace(0, len(pairs) - 1, min(_PAIRS, len(pairs))).astype(int)
        for column, index in enumerate(chosen):
            for side, image in enumerate(pairs[index]):
                left = _MARGIN + column * (_PAIR + _GAP) + side * (_TILE + _SEAM)
                page.paste(_tile(image), (left, top + _TITLE))
    return encode_png(np.asarray(page)[..., None])


def _small(grey: np.ndarray) -> np.ndarray:
    small = Image.fromarray(grey)
    small.thumbnail((_TILE, _TILE))
    return np.asarray(small)


def _tile(image: np.ndarray) -> Image.Image:
    """Fit the image into a square, undistorted, on mid-grey."""
    return ImageOps.pad(Image.fromarray(image), (_TILE, _TILE), color=_FRAME)


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FONT)


def _title(text: str) -> str:
    """Return the text in letters that the font has, cut to the width of the page."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    shown = "".join(char if " " <= char <= "~" else "?" for char in plain)
    while _font().getlength(shown) > _WIDTH:
        shown = f"{shown[:-4]}..."
    return shown
