"""Distances between the rows of two sets, block by block, so that memory stays bounded.

Rows become float64 inside a block: the quick formula |a|^2 + |b|^2 - 2ab loses half of the digits
for near rows, and near rows are what a copy of a training image makes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

_ROWS = 4096
_NUMBERS = 2**24  # float64 in one operand of a block: 128 MiB


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DistanceBlock:
    """Distances of some rows of one set to some rows of another.

    Attributes:
        rows, columns: which rows of the first and of the second set.
        squared: squared Euclidean distances, float64 [n, m]; exactly 0 for equal rows.
        rounding: bound of the rounding error of `squared` and of a squared radius that was
            computed the same way, float64 [n, m].
    """

    rows: slice
    columns: slice
    squared: Tensor
    rounding: Tensor

    def within(self, squared_radii: Tensor) -> Tensor:
        """Return which distances are at most a radius, ties included: bool [n, m]."""
        return self.squared <= squared_radii + self.rounding


def distance_blocks(a: Tensor, b: Tensor) -> Iterator[DistanceBlock]:
    """Yield the distances of all pairs in blocks of at most 4096 x 4096.

    Args:
        a, b: [N, D] and [M, D] of any type, on one device. Blocks of the same rows of `a` follow
            each other.
    """
    width = a.shape[1]
    rows = min(_ROWS, max(1, _NUMBERS // width))
    # a sum of D products errs by at most D eps/2 of the sum of their sizes (Higham 2002, 3.1)
    unit = 2 * (width + 4) * torch.finfo(torch.float64).eps
    for i in range(0, len(a), rows):
        left = a[i : i + rows].double()
        left_norms = left.square().sum(dim=1, keepdim=True)
        for j in range(0, len(b), rows):
            right = b[j : j + rows].double()
            norms = left_norms + right.square().sum(dim=1)
            squared = torch.addmm(norms, left, right.T, alpha=-2)
            rounding = norms.mul_(unit)
            squared.masked_fill_(squared <= rounding, 0)
            yield DistanceBlock(
                rows=slice(i, i + len(left)),
                columns=slice(j, j + len(right)),
                squared=squared,
                rounding=rounding,
            )


def nearest(a: Tensor, b: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k nearest rows of `b` for each row of `a`, nearest first.

    Returns:
        Distances, float64 [N, k], and rows of `b`, int64 [N, k]; fewer columns where `b` has
        fewer than k rows.
    """
    squared: list[Tensor] = []
    found: list[Tensor] = []
    for block in distance_blocks(a, b):
        height, start = len(block.squared), block.columns.start
        if start == 0:
            squared.append(block.squared.new_empty(height, 0))
            found.append(torch.empty(height, 0, dtype=torch.int64, device=a.device))
        numbers = torch.arange(start, block.columns.stop, device=a.device)
        candidates = torch.cat([squared[-1], block.squared], dim=1)
        origins = torch.cat([found[-1], numbers.expand(height, -1)], dim=1)
        squared[-1], order = candidates.topk(min(k, candidates.shape[1]), largest=False)
        found[-1] = origins.gather(1, order)
    return torch.cat(squared).sqrt(), torch.cat(found)


def radii(x: Tensor, k: int) -> Tensor:
    """Return the distances of each row to its 1st to k-th nearest other row: float64 [N, k]."""
    distances, _ = nearest(x, x, k + 1)
    return distances[:, 1:]  # the nearest of all is the row itself, or its double
