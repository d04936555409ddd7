"""Kernel Inception distance (KID) between two sets of features, with its standard error."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from gemix.evaluation.image_quality.base import ImageMetric, ImageMetricError, MetricOutput

BLOCKS = 10  # that the error is estimated from
_ROWS = 4096


class Kid(ImageMetric):
    """KID and its standard error."""

    outputs: ClassVar = (
        MetricOutput(
            name="kid", label="KID", higher_is_better=False, chart="KID", error="kid_error"
        ),
    )

    statistics: ClassVar = ("kid_real_means",)

    def real_statistics(self, features: Tensor) -> dict[str, Tensor]:
        """Return the kernel's means over pairs of real images, half of the cost of a KID."""
        return {"kid_real_means": real_kernel_means(features)}

    def compute(self, real: Mapping[str, Tensor], fakes: Tensor) -> dict[str, float]:
        """Return `kid` and `kid_error`."""
        found = kid(real["features"], fakes, real["kid_real_means"])
        return {"kid": found.value, "kid_error": found.error}


@dataclasses.dataclass(frozen=True, kw_only=True)
class KidEstimate:
    """A kernel distance and its standard error."""

    value: float
    error: float


def real_kernel_means(real: Tensor) -> Tensor:
    """Return the kernel's mean over pairs of different rows of all and of each of ten blocks.

    Args:
        real: [N, D].

    Returns:
        float64 [11]; NaN where a block has less than two rows.
    """
    means = [_mean(x, x, pairs=True) for x in (real, *real.tensor_split(BLOCKS))]
    return torch.stack(means)


def kid(real: Tensor, fake: Tensor, real_means: Tensor | None = None) -> KidEstimate:
    """Return KID: the unbiased estimate of the squared MMD with the kernel (x.y / D + 1)^3.

    Binkowski et al., "Demystifying MMD GANs", 2018, equation 4. In contrast to FID it has no bias
    that depends on the number of images, and it can be below 0 where the sets are alike.

    The value is that of all pairs. The standard error is that of the mean of ten estimates from
    disjoint blocks of both sets, whose sizes differ by one row at most. Where the sets are alike
    it is too large rather than too small, since estimates from blocks scatter more there.

    Args:
        real, fake: [N, D] and [M, D], 20 rows or more each, in random order.
        real_means: :func:`real_kernel_means` of `real`, where they are known.

    Raises:
        ImageMetricError: for fewer rows.
    """
    fewest = min(len(real), len(fake))
    if fewest < 2 * BLOCKS:
        raise ImageMetricError(
            f"KID of {len(real)} real and {len(fake)} generated images: its error needs "
            f"{2 * BLOCKS} or more of each; raise metrics.images and metrics.real_images"
        )
    if real_means is None:
        real_means = real_kernel_means(real)
    sets = [(real, fake), *zip(real.tensor_split(BLOCKS), fake.tensor_split(BLOCKS), strict=True)]
    means = [_mean(y, y, pairs=True) - 2 * _mean(x, y) for x, y in sets]
    whole, *blocks = (torch.stack(means) + real_means).tolist()
    error = torch.tensor(blocks, dtype=torch.float64).std() / BLOCKS**0.5
    return KidEstimate(value=whole, error=error.item())


def _mean(a: Tensor, b: Tensor, pairs: bool = False) -> Tensor:
    """Return the kernel's mean over all combinations, or over pairs of different rows of a set."""
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    for i in range(0, len(a), _ROWS):
        left = a[i : i + _ROWS].double()
        for j in range(0, len(b), _ROWS):
            total += _kernel(left @ b[j : j + _ROWS].double().T, a.shape[1]).sum()
        if pairs:
            total -= _kernel(left.square().sum(dim=1), a.shape[1]).sum()
    count = len(a) * (len(b) - pairs)
    return total / count if count else torch.full_like(total, torch.nan)


def _kernel(products: Tensor, width: int) -> Tensor:
    return (products / width + 1) ** 3
