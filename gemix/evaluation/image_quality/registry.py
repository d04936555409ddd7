"""The image metrics, in the order in which they are shown: one line each."""

from __future__ import annotations

from gemix.evaluation.image_quality.base import ImageMetric, MetricOutput
from gemix.evaluation.image_quality.fid import Fid
from gemix.evaluation.image_quality.kid import Kid
from gemix.evaluation.image_quality.prdc import Prdc

IMAGE_METRICS: tuple[ImageMetric, ...] = (
    Kid(),
    Fid(),
    Prdc(),
)


def metric_outputs() -> tuple[MetricOutput, ...]:
    """Return the outputs of all metrics."""
    return tuple(output for metric in IMAGE_METRICS for output in metric.outputs)
