"""Fréchet inception distance (FID) between two sets of features."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from gemix.evaluation.image_quality.base import ImageMetric, MetricOutput

_ROWS = 4096


class Fid(ImageMetric):
    """FID."""

    outputs: ClassVar = (
        MetricOutput(name="fid", label="FID", higher_is_better=False, chart="FID"),
    )
    statistics: ClassVar = ("mean", "factor")

    def real_statistics(self, features: Tensor) -> dict[str, Tensor]:
        """Return the Gaussian of the real images."""
        found = Gaussian.of(features)
        return {"mean": found.mean, "factor": found.factor}

    def compute(self, real: Mapping[str, Tensor], fakes: Tensor) -> dict[str, float]:
        """Return `fid`."""
        gaussian = Gaussian(mean=real["mean"], factor=real["factor"])
        return {"fid": frechet_distance(gaussian, Gaussian.of(fakes))}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Gaussian:
    """Mean and covariance of a set of features.

    Attributes:
        mean: float64 [D].
        factor: float64 [D, R]; the covariance is factor factor^T, R at most D.
    """

    mean: Tensor
    factor: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """Return the Gaussian of features [N, D], N at least 2, computed in float64."""
        count, width = features.shape
        chunks = [features[i : i + _ROWS] for i in range(0, count, _ROWS)]
        mean = torch.stack([chunk.double().sum(dim=0) for chunk in chunks]).sum(dim=0) / count
        if count <= width:  # fewer images than dimensions: the images are the factor
            return cls(mean=mean, factor=(features.double() - mean).T / (count - 1) ** 0.5)
        covariance = torch.zeros(width, width, dtype=torch.float64, device=features.device)
        for chunk in chunks:
            centred = chunk.double() - mean
            covariance.addmm_(centred.T, centred)
        values, vectors = torch.linalg.eigh(covariance / (count - 1))
        # rounding alone makes eigenvalues of a covariance negative
        return cls(mean=mean, factor=vectors * values.clamp(min=0).sqrt())


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Return FID: |m_a - m_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2)), at least 0.

    Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash
    equilibrium", 2017, equation 6. The trace of the root is the sum of the singular values of
    F_a^T F_b for S = F F^T. That needs no root of a product that is not symmetric, which fails
    for covariances without full rank: those of fewer images than dimensions, say.
    """
    means = (a.mean - b.mean).square().sum()
    traces = a.factor.square().sum() + b.factor.square().sum()
    root = torch.linalg.svdvals(a.factor.T @ b.factor).sum()
    return max(0.0, (means + traces - 2 * root).item())
