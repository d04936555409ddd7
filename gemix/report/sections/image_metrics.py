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
from gemix.evaluation.privacy.registry import audit_outputs
from gemix.io.records import to_json
from gemix.io.results import (
    IMAGE_METRICS,
    MEMORIZATION_VIEW,
    BestMeasurement,
    Memorization,
    read_image_metrics,
)
from gemix.io.storage import Store
from gemix.report.charts import curves_chart, log_curve
from gemix.report.examples import small_png


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
class AuditRow:
    """One output of a privacy audit as the table shows it: its values as text, and its meaning."""

    label: str
    by_features: str
    by_pixels: str
    unseen: str
    meaning: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageMetricsPart:
    """Image metrics and privacy audits of the generator that the training left.

    Attributes:
        primary_metric: label of the metric that ranks generators.
        generator: metrics of the generator, with `kimg`, `images`, `real_images`, `extractor`.
        best: the best evaluation; None if there is none.
        used: whether the generator is the `best` or the `last` one.
        memorization: numbers of images, and the values of the audits.
        rows: of the memorization view.
    """

    primary_metric: str
    generator: Mapping[str, Any]
    best: BestMeasurement | None
    used: str
    memorization: Memorization
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

    @property
    def audits(self) -> list[AuditRow]:
        """Every registered audit that was computed; none without held-out images."""
        spaces = self.memorization.by_features, self.memorization.by_pixels
        if None in spaces:
            return []
        rows = []
        for output in audit_outputs():
            found = [space.get(output.name) for space in spaces]
            features, pixels = ("–" if v is None else f"{v:{output.format}}" for v in found)
            rows.append(
                AuditRow(
                    label=output.label,
                    by_features=features,
                    by_pixels=pixels,
                    unseen=f"{output.unseen:{output.format}}",
                    meaning=output.meaning,
                )
            )
        return rows


def image_metrics(store: Store) -> ImageMetricsPart | None:
    """Read the image metrics of a training; return None if it measured none.

    Raises:
        DataError: if they are damaged.
    """
    if not store.exists(IMAGE_METRICS):
        return None
    found = read_image_metrics(store)
    labels = {output.name: output.label for output in metric_outputs()}
    if found.primary_metric not in labels:
        raise DataError(
            f"{store.url}/{IMAGE_METRICS}: primary_metric is {found.primary_metric!r} and none "
            f"of {', '.join(labels)}; train again with --overwrite, or delete {IMAGE_METRICS} to "
            "leave this section out"
        )
    try:
        rows = _rows(store, found.memorization)
    except (ValueError, OSError) as error:
        raise DataError(
            f"{store.url}: {MEMORIZATION_VIEW} is damaged or does not fit {IMAGE_METRICS} "
            f"({error}); train again with --overwrite, or delete {IMAGE_METRICS} to leave this "
            "section out"
        ) from error
    return ImageMetricsPart(
        primary_metric=labels[found.primary_metric],
        generator=to_json(found.generator),
        best=found.best,
        used=found.used,
        memorization=found.memorization,
        rows=rows,
    )


def image_charts(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """Draw curves of the image metrics over the training; a single evaluation has none."""
    grouped: dict[str, dict[str, str]] = {}
    for output in metric_outputs():
        grouped.setdefault(output.chart, {})[output.label] = output.name
    grouped["label agreement"] = {"label agreement": "label_agreement"}
    charts = []
    for title, names in grouped.items():
        found = {label: log_curve(log, "kimg", name) for label, name in names.items()}
        curves = {label: [curve] for label, curve in found.items() if curve and len(curve[0]) > 1}
        if curves:
            charts.append(curves_chart(f"Images: {title}", curves, xlabel="kimg"))
    return charts


def _rows(store: Store, found: Memorization) -> tuple[NeighborRow, ...]:
    """Cut the picture of the memorization view into its images."""
    with Image.open(io.BytesIO(store.read_bytes(MEMORIZATION_VIEW))) as image:
        pixels = np.atleast_3d(np.asarray(image))
    tiles = [
        [_png(tile) for tile in np.hsplit(row, 1 + 2 * found.neighbors)]
        for row in np.vsplit(pixels, len(found.rows))
    ]
    return tuple(
        NeighborRow(
            sample=images[0],
            by_features=tuple(images[1 : 1 + found.neighbors]),
            by_pixels=tuple(images[1 + found.neighbors :]),
            number=row.sample,
            is_nearest=row.shown_as == "nearest",
        )
        for images, row in zip(tiles, found.rows, strict=True)
    )


def _png(tile: np.ndarray) -> bytes:
    return small_png(np.ascontiguousarray(tile.transpose(2, 0, 1)))
