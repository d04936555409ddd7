"""The report's section on the generator's images: metrics, curves, memorization."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from gemix.core.errors import DataError
from gemix.evaluation.image_quality.registry import metric_outputs
from gemix.io.storage import Store
from gemix.report.charts import curves_chart, log_curve
from gemix.report.examples import small_png

SUMMARY, VIEW = "metrics.json", "memorization.png"
_MEASURED = ("kimg", "images", "real_images", "extractor")  # what every measurement names


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
class MetricCell:
    """One metric as the table shows it: its label with an arrow, its value, its error."""

    label: str
    value: str
    error: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageMetricsPart:
    """Image metrics and copying audit of the generator that the training left.

    Attributes:
        primary_metric: label of the metric that ranks generators.
        generator: metrics of the generator, with `kimg`, `images`, `real_images`, `extractor`.
        best: `kimg` and `score` of the best evaluation; None if there is none.
        used: whether the generator is the `best` or the `last` one.
        memorization: as :class:`gemix.steps.gan_training.memorization_view.MemorizationView` has
            it.
        rows: of the memorization view.
    """

    primary_metric: str
    generator: Mapping[str, Any]
    best: Mapping[str, float] | None
    used: str
    memorization: Mapping[str, Any]
    rows: tuple[NeighborRow, ...]

    @property
    def cells(self) -> list[MetricCell]:
        """Every registered metric; a dash for those that were not measured."""
        cells = []
        for output in metric_outputs():
            value = self.generator.get(output.name)
            error = self.generator.get(output.error) if output.error else None
            cells.append(
                MetricCell(
                    label=f"{output.label} {'↑' if output.higher_is_better else '↓'}",
                    value="–" if value is None else f"{value:{output.format}}",
                    error=None if error is None else f"{error:.2g}",
                )
            )
        return cells


def image_metrics(store: Store) -> ImageMetricsPart | None:
    """Read the image metrics of a training; return None if it measured none.

    Raises:
        DataError: if they are damaged.
    """
    if not store.exists(SUMMARY):
        return None
    summary = store.read_json(SUMMARY)
    try:
        found = summary["memorization"]
        audits = {space: _audit(found[space]) for space in ("by_features", "by_pixels")}
        # the first version of the file: `headline`, and the metrics of the last generator alone
        primary = summary.get("primary_metric") or summary["headline"]
        generator = summary.get("generator") or summary["last"]
        rows = _rows(store, found["neighbors"], found["rows"])
        labels = {output.name: output.label for output in metric_outputs()}
        return ImageMetricsPart(
            primary_metric=labels[primary],
            generator=generator | {name: generator[name] for name in _MEASURED},
            best=summary["best"],
            used=summary["used"],
            memorization=found | audits,
            rows=rows,
        )
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(
            f"{store.url}: {SUMMARY} or {VIEW} is damaged ({type(error).__name__}: {error}); train "
            f"again with --overwrite, or delete {SUMMARY} to leave this section out"
        ) from error


def image_charts(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """Draw curves of the image metrics over the training; a single evaluation has none."""
    grouped: dict[str, dict[str, str]] = {}
    for output in metric_outputs():
        grouped.setdefault(output.chart, {})[output.label] = output.name
    charts = []
    for title, names in grouped.items():
        found = {label: log_curve(log, "kimg", name) for label, name in names.items()}
        curves = {label: [curve] for label, curve in found.items() if curve and len(curve[0]) > 1}
        if curves:
            charts.append(curves_chart(f"Images: {title}", curves, xlabel="kimg"))
    return charts


def _audit(found: Mapping[str, float] | None) -> dict[str, float] | None:
    """Return a copying audit; the first version of the file called `copying_auc` `nearer`."""
    if found is None:
        return None
    auc = found["copying_auc"] if "copying_auc" in found else found["nearer"]
    return {"copying_auc": auc, "near_fraction": found["near_fraction"]}


def _rows(
    store: Store, neighbors: int, rows: Sequence[Mapping[str, Any]]
) -> tuple[NeighborRow, ...]:
    """Cut the picture of the memorization view into its images."""
    with Image.open(io.BytesIO(store.read_bytes(VIEW))) as image:
        pixels = np.atleast_3d(np.asarray(image))
    tiles = [
        [_png(tile) for tile in np.hsplit(row, 1 + 2 * neighbors)]
        for row in np.vsplit(pixels, len(rows))
    ]
    return tuple(
        NeighborRow(
            sample=images[0],
            by_features=tuple(images[1 : 1 + neighbors]),
            by_pixels=tuple(images[1 + neighbors :]),
            number=row["sample"],
            is_nearest=row["shown_as"] == "nearest",
        )
        for images, row in zip(tiles, rows, strict=True)
    )


def _png(tile: np.ndarray) -> bytes:
    return small_png(np.ascontiguousarray(tile.transpose(2, 0, 1)))
