"""The section that looks inside the best classifier: misses, Grad-CAM maps, a t-SNE map."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from gemix.core.errors import DataError
from gemix.io.explanation_record import (
    EXPLANATION,
    EXPLANATION_VIEW,
    PROJECTION,
    Explanation,
    Projection,
    ShownImage,
    read_explanation,
    read_projection,
)
from gemix.io.storage import Store
from gemix.report.charts import STYLE, color, svg_element
from gemix.report.examples import small_png

_OPACITY = 0.6  # of a map where it is largest
_SIZE = (3.8, 3.6)  # inches


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A test image, and the same under its map; PNG each, None without a map."""

    shown: ShownImage
    image: bytes
    mapped: bytes | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class InsidePart:
    """Pictures, maps and projection of the best classifier's features, for the page.

    Attributes:
        explanation: of the best classifier.
        misses, hits: pictures, most confident first.
        projection: of its features; None if there is none.
    """

    explanation: Explanation
    misses: tuple[Picture, ...]
    hits: tuple[Picture, ...]
    projection: Projection | None


def inside_part(store: Store, classes: int) -> InsidePart | None:
    """Read what an evaluation kept; return None if it kept nothing.

    Args:
        store: of the evaluation.
        classes: K.

    Raises:
        DataError: naming the file that is damaged.
    """
    explanation = read_explanation(store)
    if explanation is None:
        return None
    projection = read_projection(store)
    shown = [index for one in explanation.images for index in (one.label, one.predicted)]
    _check_classes(store, EXPLANATION, shown, classes)
    _check_classes(store, PROJECTION, projection.label if projection else (), classes)
    try:
        pictures = _pictures(store, explanation)
    except (ValueError, OSError, SyntaxError) as error:  # PIL raises all of them
        raise DataError(
            f"{store.url}: {EXPLANATION_VIEW} is damaged or does not fit {EXPLANATION} ({error}); "
            f"run gemix evaluate --overwrite, or delete {EXPLANATION} to leave this section out"
        ) from error
    return InsidePart(
        explanation=explanation,
        misses=tuple(one for one in pictures if not one.shown.is_hit),
        hits=tuple(one for one in pictures if one.shown.is_hit),
        projection=projection,
    )


def _check_classes(store: Store, name: str, indices: Sequence[int], classes: int) -> None:
    if indices and not 0 <= min(indices) <= max(indices) < classes:
        raise DataError(
            f"{store.url}/{name}: a class outside 0 to {classes - 1}; run gemix evaluate "
            "--overwrite"
        )


def projection_charts(found: Projection) -> list[str]:
    """Draw the t-SNE map twice: with test images, and with synthetic ones, if there are any."""
    charts = [_scatter(found, "test", "Real images: training ● and test ×", "x")]
    if "synthetic" in found.source:
        title = f"Training images ● and synthetic ones △, {found.method}"
        charts.append(_scatter(found, "synthetic", title, "^"))
    return charts


def _pictures(store: Store, explanation: Explanation) -> list[Picture]:
    """Cut the picture of the explanation into its images."""
    with Image.open(io.BytesIO(store.read_bytes(EXPLANATION_VIEW)), formats=["PNG"]) as image:
        pixels = np.atleast_3d(np.asarray(image))
    mapped = explanation.layer is not None
    count = len(explanation.images)
    if not count:
        raise ValueError("no image")
    images, maps = [
        *(np.hsplit(row, count) for row in np.vsplit(pixels, 2 if mapped else 1)),
        *([] if mapped else [[None] * count]),
    ]
    return [
        Picture(
            shown=shown,
            image=small_png(np.ascontiguousarray(image.transpose(2, 0, 1))),
            mapped=None if weights is None else _overlay(image, weights[..., 0]),
        )
        for shown, image, weights in zip(explanation.images, images, maps, strict=True)
    ]


def _overlay(image: np.ndarray, weights: np.ndarray) -> bytes:
    """Return the image, uint8 [H, W, C], under its map, uint8 [H, W], as PNG."""
    heat = matplotlib.colormaps["inferno"](weights)[..., :3] * 255
    opacity = _OPACITY * weights[..., None] / 255
    mixed = (1 - opacity) * image[..., :3] + opacity * heat
    return small_png(np.ascontiguousarray(mixed.round().astype(np.uint8).transpose(2, 0, 1)))


def _scatter(found: Projection, source: str, title: str, marker: str) -> str:
    places = np.array([found.x, found.y]).T
    labels, sources = np.array(found.label), np.array(found.source)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_title(title, pad=8)
        for index in np.unique(labels):
            of_class = labels == index
            ink = color(int(index) + 1)
            train = places[of_class & (sources == "train")]
            axes.plot(*train.T, "o", color=ink, markersize=2.2, alpha=0.35, markeredgewidth=0)
            other = places[of_class & (sources == source)]
            axes.plot(
                *other.T,
                marker,
                color=ink,
                markersize=4,
                markerfacecolor="none",
                markeredgewidth=1,
            )
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(True)
        return svg_element(figure, f"projection-{source}")
