"""The picture of an audit: synthetic images beside the training images they are nearest to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from gemix.core.png import encode_png
from gemix.data.dataset_card.contact_sheet import thumbnail
from gemix.io.audit_record import NearPair

_TILE, _TEXT, _GAP = 128, 44, 8  # pixels
_COLUMNS = 4
_LETTERS = 21  # that a tile is wide


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PairImages:
    """A pair and its images, uint8 [C, H, W] each; `training_source` names the real one."""

    pair: NearPair
    synthetic: np.ndarray
    training: np.ndarray
    training_source: str


def pairs_sheet(pairs: Sequence[PairImages]) -> bytes:
    """Draw pairs side by side, the synthetic image left, each under its distance, as a PNG."""
    rows = -(-len(pairs) // _COLUMNS)
    width, height = 2 * _TILE + _GAP, _TILE + _TEXT + _GAP
    page = Image.new("L", (_COLUMNS * width, max(1, rows) * height), 255)
    draw = ImageDraw.Draw(page)
    if not pairs:
        draw.text((3, 2), "no training images at hand to compare with", fill=0)
    for index, one in enumerate(pairs):
        left, top = index % _COLUMNS * width, index // _COLUMNS * height
        kind = ", a copy" if one.pair.is_copy else ""
        title = f"{one.pair.relative:.2f} by {one.pair.space}{kind}"
        draw.text((left + 3, top + 2), title, fill=0)
        sides = (
            ("synthetic", one.pair.source, one.synthetic),
            (
                "training",
                one.training_source,
                one.training,
            ),
        )
        for side, (name, source, image) in enumerate(sides):
            start = left + side * _TILE
            draw.text((start + 3, top + 15), name, fill=0)
            # the ends of paths differ more than their beginnings
            draw.text((start + 3, top + 28), source[-_LETTERS:], fill=0)
            tile = Image.fromarray(thumbnail(image)).resize((_TILE, _TILE))
            page.paste(tile, (start, top + _TEXT))
    return encode_png(np.asarray(page)[..., None])
