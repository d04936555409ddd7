"""Improved precision and recall, density and coverage (PRDC) of generated images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from gemix.evaluation.image_quality.base import ImageMetric, MetricOutput
from gemix.evaluation.image_quality.nearest_neighbors import distance_blocks, radii

PRECISION_NEIGHBORS = 3  # k of Kynkäänniemi et al.
DENSITY_NEIGHBORS = 5  # k of Naeem et al.


class Prdc(ImageMetric):
    """Precision, recall, density and coverage."""

    outputs: ClassVar = tuple(
        MetricOutput(name=name, label=name, higher_is_better=True, chart=chart, format=".2f")
        for name, chart in (
            ("precision", "precision and recall"),
            ("recall", "precision and recall"),
            ("density", "density and coverage"),
            ("coverage", "density and coverage"),
        )
    )
    statistics: ClassVar = ("radii",)

    def real_statistics(self, features: Tensor) -> dict[str, Tensor]:
        """Return the neighbourhoods' radii of the real images."""
        return {"radii": real_radii(features)}

    def compute(self, real: Mapping[str, Tensor], fakes: Tensor) -> dict[str, float]:
        """Return `precision`, `recall`, `density` and `coverage`."""
        return dataclasses.asdict(prdc(real["features"], fakes, real["radii"]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrdcValues:
    """Precision, recall, density and coverage; all but `density` are from 0 to 1.

    Attributes:
        precision: share of generated images in a real image's neighbourhood (k = 3).
        recall: share of real images in a generated image's neighbourhood (k = 3).
        density: mean number of real neighbourhoods (k = 5) that a generated image lies in, over
            k; 1 is expected of a real one, and it may exceed 1.
        coverage: share of real images with a generated one in their neighbourhood (k = 5).
    """

    precision: float
    recall: float
    density: float
    coverage: float


def real_radii(real: Tensor) -> Tensor:
    """Return the radii of the real images that :func:`prdc` takes: float64 [N, 5]."""
    return radii(real, max(PRECISION_NEIGHBORS, DENSITY_NEIGHBORS))


def prdc(real: Tensor, fake: Tensor, radii_of_real: Tensor) -> PrdcValues:
    """Return improved precision and recall, density and coverage.

    Kynkäänniemi et al., "Improved precision and recall metric for assessing generative models",
    2019, equations 1 and 2; Naeem et al., "Reliable fidelity and diversity metrics for generative
    models", 2020, equations 3 and 4. Recall reaches further where a generated image lies far off,
    which coverage does not.

    A neighbourhood is a closed ball: an image at exactly the distance of the k-th neighbour is
    inside, and rounding never decides such a tie. A copy of the real set of N different images
    has density 1 + 1/k and all else 1. Where more than k real images are equal their radii are
    0, only equal images are inside, and density is up to N/k.

    Args:
        real, fake: [N, D] and [M, D], more than five rows each.
        radii_of_real: :func:`real_radii` of `real`.
    """
    of_real = radii_of_real[:, PRECISION_NEIGHBORS - 1].square()[:, None]
    of_fake = radii(fake, PRECISION_NEIGHBORS)[:, -1].square()
    wider = radii_of_real[:, DENSITY_NEIGHBORS - 1].square()[:, None]
    precise = torch.zeros(len(fake), dtype=torch.bool, device=real.device)
    recalled = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    covered = torch.zeros_like(recalled)
    neighborhoods = 0
    for block in distance_blocks(real, fake):
        rows, columns = block.rows, block.columns
        precise[columns] |= block.within(of_real[rows]).any(dim=0)
        recalled[rows] |= block.within(of_fake[columns]).any(dim=1)
        inside = block.within(wider[rows])
        covered[rows] |= inside.any(dim=1)
        neighborhoods += int(inside.sum())
    return PrdcValues(
        precision=precise.double().mean().item(),
        recall=recalled.double().mean().item(),
        density=neighborhoods / (DENSITY_NEIGHBORS * len(fake)),
        coverage=covered.double().mean().item(),
    )
