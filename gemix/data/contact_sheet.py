"""A few prepared images of each class on one page, to look at before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from gemix.images import encode_png

_TILE = 128  # largest side of a thumbnail, pixels
_COLUMNS = 12
_TITLE = 16


def thumbnail(image: np.ndarray) -> np.ndarray:
    """A small copy of the first channel of uint8 [C, H, W]: uint8 [h, w], sides up to 128."""
    small = Image.fromarray(image[0])
    small.thumbnail((_TILE, _TILE))
    return np.asarray(small)


def contact_sheet(rows: Mapping[str, Sequence[np.ndarray]]) -> bytes:
    """A PNG with one titled row a class, of up to 12 images spread evenly over those given.

    Args:
        rows: thumbnails uint8 [h, w] by class name.
    """
    page = Image.new("L", (_COLUMNS * _TILE, len(rows) * (_TILE + _TITLE)), 255)
    draw = ImageDraw.Draw(page)
    for row, (name, images) in enumerate(rows.items()):
        top = row * (_TILE + _TITLE)
        draw.text((3, top + 2), name, fill=0)
        spread = np.linspace(0, len(images) - 1, min(_COLUMNS, len(images))).astype(int)
        for column, index in enumerate(spread):
            tile = Image.fromarray(images[index]).resize((_TILE, _TILE))
            page.paste(tile, (column * _TILE, top + _TITLE))
    return encode_png(np.asarray(page)[..., None])
