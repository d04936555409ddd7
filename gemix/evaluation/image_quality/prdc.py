"""Whether generated images lie among the real ones, and whether they reach all of them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from gemix.evaluation.image_quality.nearest_neighbors import blocks, radii

PRECISION_NEIGHBORS = 3  # as Kynkäänniemi et al. choose it
DENSITY_NEIGHBORS = 5  # as Naeem et al. choose it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prdc:
    """How the two sets lie to each other. All but `density` are from 0 to 1.

    Attributes:
        precision: share of generated images within reach of a real one.
        recall: share of real images within reach of a generated one.
        density: how many real neighbourhoods a generated image lies in, on average, over the
            number expected of a real one; may exceed 1.
        coverage: share of real images with a generated one in their neighbourhood.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def real_radii(real: Tensor) -> Tensor:
    """What :func:`prdc` needs to know of the real set: float64 [N, 5]."""
    return radii(real, max(PRECISION_NEIGHBORS, DENSITY_NEIGHBORS))


def prdc(real: Tensor, fake: Tensor, radii_of_real: Tensor) -> Prdc:
    """Improved precision and recall, density and coverage.

    Kynkäänniemi et al., "Improved precision and recall metric for assessing generative models",
    2019, equations 1 and 2; Naeem et al., "Reliable fidelity and diversity metrics for generative
    models", 2020, equations 3 and 4. Recall reaches further where a generated image lies far off,
    which coverage does not.

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
    for rows, columns, squared in blocks(real, fake):
        precise[columns] |= (squared <= of_real[rows]).any(dim=0)
        recalled[rows] |= (squared <= of_fake[columns]).any(dim=1)
        inside = squared <= wider[rows]
        covered[rows] |= inside.any(dim=1)
        neighborhoods += int(inside.sum())
    return Prdc(
        precision=precise.double().mean().item(),
        recall=recalled.double().mean().item(),
        density=neighborhoods / (DENSITY_NEIGHBORS * len(fake)),
        coverage=covered.double().mean().item(),
    )
