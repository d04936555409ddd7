"""The part of the report about the generator's images: figures, curves, memorisation."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from gemix.core.errors import DataError
from gemix.io.storage import Store
from gemix.report.examples import small_png
from gemix.report.figures import curves_chart, log_curve

_CHARTS = (
    ("Images: KID", {"KID": "kid"}),
    ("Images: FID", {"FID": "fid"}),
    ("Images: precision and recall", {"precision": "precision", "recall": "recall"}),
    ("Images: density and coverage", {"density": "density", "coverage": "coverage"}),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeighborRow:
    """A sample and the training images nearest to it, each a PNG.

    Attributes:
        sample: the generated image.
        by_features, by_pixels: training images, nearest first.
        number: of the sample.
        is_nearest: whether it is shown because it is near, not because it is one of the first.
    """

    sample: bytes
    by_features: tuple[bytes, ...]
    by_pixels: tuple[bytes, ...]
    number: int
    is_nearest: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageMetricsPart:
    """What ``metrics.json`` says, and the picture beside it.

    Attributes:
        summary: the file; :meth:`gemix.steps.gan_training.metrics.ImageMetrics.at_end` describes
            it.
        resemblances: rows of the memorisation view.
    """

    summary: Mapping[str, Any]
    resemblances: tuple[NeighborRow, ...]


def image_metrics(store: Store) -> ImageMetricsPart | None:
    """Reads what a training has left; None where it measured nothing.

    Raises:
        DataError: if it is damaged.
    """
    if not store.exists("metrics.json"):
        return None
    summary = store.read_json("metrics.json")
    try:
        found = summary["memorization"]
        neighbors, rows = found["neighbors"], found["rows"]
        with Image.open(io.BytesIO(store.read_bytes("memorization.png"))) as image:
            pixels = np.atleast_3d(np.asarray(image))
        tiles = [
            [_png(tile) for tile in np.hsplit(row, 1 + 2 * neighbors)]
            for row in np.vsplit(pixels, len(rows))
        ]
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(
            f"{store.url}: metrics.json or memorization.png is damaged ({error}); train again with "
            "--overwrite, or delete metrics.json to do without"
        ) from error
    resemblances = tuple(
        NeighborRow(
            sample=images[0],
            by_features=tuple(images[1 : 1 + neighbors]),
            by_pixels=tuple(images[1 + neighbors :]),
            number=row["sample"],
            is_nearest=row["shown_as"] == "nearest",
        )
        for images, row in zip(tiles, rows, strict=True)
    )
    return ImageMetricsPart(summary=summary, resemblances=resemblances)


def image_charts(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """Curves of the image metrics over the training; a single evaluation makes none."""
    charts = []
    for title, keys in _CHARTS:
        found = {name: log_curve(log, "kimg", key) for name, key in keys.items()}
        curves = {name: [curve] for name, curve in found.items() if curve and len(curve[0]) > 1}
        if curves:
            charts.append(curves_chart(title, curves, xlabel="kimg"))
    return charts


def _png(tile: np.ndarray) -> bytes:
    return small_png(np.ascontiguousarray(tile.transpose(2, 0, 1)))
