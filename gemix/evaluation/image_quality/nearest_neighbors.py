"""Distances between the rows of two sets, block by block, so that memory stays bounded.

Rows become float64 inside a block: the quick formula |a|^2 + |b|^2 - 2ab loses half of the digits
for near rows, and near rows are what a copy of a training image makes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_ROWS = 4096
_NUMBERS = 2**24  # float64 in one operand of a block: 128 MiB


def blocks(a: Tensor, b: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Squared Euclidean distances of all pairs, as (rows of a, rows of b, block).

    Args:
        a, b: [N, D] and [M, D] of any type, on one device. Blocks of the same rows of `a` follow
            each other.

    Yields:
        Blocks of at most 4096 x 4096, float64, not negative.
    """
    rows = min(_ROWS, max(1, _NUMBERS // a.shape[1]))
    for i in range(0, len(a), rows):
        left = a[i : i + rows].double()
        left_norms = left.square().sum(dim=1, keepdim=True)
        for j in range(0, len(b), rows):
            right = b[j : j + rows].double()
            squared = torch.addmm(left_norms + right.square().sum(dim=1), left, right.T, alpha=-2)
            yield slice(i, i + len(left)), slice(j, j + len(right)), squared.clamp_(min=0)


def nearest(a: Tensor, b: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest rows of `b` for each row of `a`, nearest first.

    Returns:
        Distances, float64 [N, k], and rows of `b`, int64 [N, k]. Where `b` has fewer than k rows
        so many columns.
    """
    squared: list[Tensor] = []
    found: list[Tensor] = []
    for rows, columns, block in blocks(a, b):
        if columns.start == 0:
            squared.append(block.new_empty(len(block), 0))
            found.append(torch.empty(len(block), 0, dtype=torch.int64, device=block.device))
        numbers = torch.arange(columns.start, columns.stop, device=block.device)
        candidates = torch.cat([squared[-1], block], dim=1)
        origins = torch.cat([found[-1], numbers.expand(rows.stop - rows.start, -1)], dim=1)
        squared[-1], order = candidates.topk(min(k, candidates.shape[1]), largest=False)
        found[-1] = origins.gather(1, order)
    return torch.cat(squared).sqrt(), torch.cat(found)


def radii(x: Tensor, k: int) -> Tensor:
    """Distances of each row to its 1st to k-th nearest other row: float64 [N, k]."""
    distances, _ = nearest(x, x, k + 1)
    return distances[:, 1:]  # the nearest of all is the row itself, or its double
