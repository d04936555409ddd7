"""All image metrics of one set of generated images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from gemix.evaluation.image_quality.base import (
    ImageMetric,
    ImageMetricError,
    wrap_metric_errors,
)
from gemix.evaluation.image_quality.real_stats import RealStats
from gemix.evaluation.image_quality.registry import IMAGE_METRICS, metric_outputs

FEW_IMAGES = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageQuality:
    """The metrics of a set of generated images, and what they were measured with.

    Attributes:
        values: one finite number for each name of the registered metrics.
        images, real_images: how many of each.
        extractor: name and checksum of the feature extractor.
    """

    values: Mapping[str, float]
    images: int
    real_images: int
    extractor: str

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    @property
    def primary_metric(self) -> str:
        """Name of the metric that ranks generators: see :func:`primary_metric`."""
        return primary_metric(self.real_images)

    @property
    def score(self) -> float:
        """Value of the primary metric; lower is better."""
        return self.values[self.primary_metric]

    def to_json(self) -> dict[str, Any]:
        """Return plain values: those of the metrics by name, and the other attributes."""
        plain = dataclasses.asdict(self)
        return plain.pop("values") | plain

    def __str__(self) -> str:
        primary = self.primary_metric
        outputs = sorted(metric_outputs(), key=lambda output: output.name != primary)
        parts = []
        for output in outputs:
            text = f"{output.label} {self.values[output.name]:{output.format}}"
            if output.error:
                text += f" ± {self.values[output.error]:.2g}"
            if output.name == primary:
                few = f": fewer than {FEW_IMAGES} real images" if primary == "kid" else ""
                text += f" (primary metric{few})"
            parts.append(text)
        return (
            f"{', '.join(parts)}; {self.images} generated against {self.real_images} real images, "
            f"by {self.extractor}"
        )


def primary_metric(real_images: int) -> str:
    """Return the metric that ranks generators: `kid` below 10,000 real images, else `fid`.

    FID is biased by a term that depends on the number of images and the model, which decides the
    order of models on small sets; KID is not (Binkowski et al. 2018, section 4).
    """
    return "kid" if real_images < FEW_IMAGES else "fid"


def measure(
    real: RealStats, fakes: Tensor, extractor: str, metrics: Sequence[ImageMetric] = IMAGE_METRICS
) -> ImageQuality:
    """Compute all metrics of a set of generated images.

    Args:
        real: statistics of the real images.
        fakes: features of the generated images, float32 [M, D], on the device of `real`.
        extractor: what made the features of both.
        metrics: what to compute.

    Raises:
        ImageMetricError: naming the metric that fails or returns anything but finite numbers.
    """
    values: dict[str, float] = {}
    for metric in metrics:
        with wrap_metric_errors(metric):
            found = metric.compute(real.arrays, fakes)
        if set(found) != set(metric.names) or not all(map(math.isfinite, found.values())):
            raise ImageMetricError(
                f"image metric {'/'.join(metric.names)}: returned {found} for {len(fakes)} "
                f"generated and {len(real.features)} real images; want finite numbers of these "
                "names"
            )
        values |= found
    return ImageQuality(
        values=values, images=len(fakes), real_images=len(real.features), extractor=extractor
    )
