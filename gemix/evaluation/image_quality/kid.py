"""The kernel distance between two sets of features, with its error."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

BLOCKS = 10  # that the error is estimated from
_ROWS = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class KidEstimate:
    """A kernel distance and its standard error."""

    value: float
    error: float


def kid(real: Tensor, fake: Tensor) -> KidEstimate:
    """KID: the unbiased estimate of the squared MMD with the kernel (x.y / D + 1)^3.

    Binkowski et al., "Demystifying MMD GANs", 2018, equation 4. In contrast to FID it has no bias
    that depends on the number of images, and it can be below 0 where the sets are alike.

    The value is that of all pairs. The standard error is that of the mean of ten estimates from
    disjoint parts of both sets; where the sets are alike it is too large rather than too small,
    since estimates from parts scatter more there.

    Args:
        real, fake: [N, D] and [M, D], 20 rows or more each, in an order without meaning.
    """
    parts = [_mmd(x, y) for x, y in zip(real.chunk(BLOCKS), fake.chunk(BLOCKS), strict=False)]
    error = torch.tensor(parts, dtype=torch.float64).std() / len(parts) ** 0.5
    return KidEstimate(value=_mmd(real, fake), error=error.item())


def _mmd(x: Tensor, y: Tensor) -> float:
    return (_mean(x, x, pairs=True) + _mean(y, y, pairs=True) - 2 * _mean(x, y)).item()


def _mean(a: Tensor, b: Tensor, pairs: bool = False) -> Tensor:
    """The kernel's mean over all combinations, or over all pairs of different rows of one set."""
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    for i in range(0, len(a), _ROWS):
        left = a[i : i + _ROWS].double()
        for j in range(0, len(b), _ROWS):
            total += _kernel(left @ b[j : j + _ROWS].double().T, a.shape[1]).sum()
        if pairs:
            total -= _kernel(left.square().sum(dim=1), a.shape[1]).sum()
    return total / (len(a) * (len(b) - pairs))


def _kernel(products: Tensor, width: int) -> Tensor:
    return (products / width + 1) ** 3
