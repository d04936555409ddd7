"""Audit of data copying: are generated images nearer to the training set than unseen ones?"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_THUMBNAIL = 64  # pixels; finer detail differs between any two slices
NEAR = 0.05  # share of held-out images that count as near


@dataclasses.dataclass(frozen=True, kw_only=True)
class CopyingAudit:
    """Distances to the nearest training image: samples against held-out real images.

    Attributes:
        copying_auc: probability that a sample is nearer to the training set than a held-out image
            is: 0.5 where samples are like unseen patients, towards 1 where they are copies.
        near_fraction: share of samples nearer than the nearest 5% of the held-out images: 0.05
            where samples are like unseen patients.
    """

    copying_auc: float
    near_fraction: float


def copying_audit(samples: Tensor, held_out: Tensor) -> CopyingAudit:
    """Compare distances to the nearest training image.

    `copying_auc` is the Mann-Whitney statistic of Meehan et al., "A non-parametric test to detect
    data-copying in generative models", 2020, over the whole space as one cell; ties count half.

    Args:
        samples, held_out: distances, [N] and [M].
    """
    ordered, values = held_out.double().sort().values, samples.double().contiguous()
    below = torch.searchsorted(ordered, values)
    up_to = torch.searchsorted(ordered, values, right=True)
    farther = len(ordered) - (below + up_to) / 2
    limit = torch.quantile(ordered, NEAR)
    return CopyingAudit(
        copying_auc=(farther / len(ordered)).mean().item(),
        near_fraction=(values < limit).double().mean().item(),
    )


def downsampled_pixels(images: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Return flattened downsampled_pixels to compare pixels of.

    Args:
        images: uint8 [N, C, H, W].

    Returns:
        uint8 [N, C * h * w], averaged over squares until a side has at most 64 pixels.
    """
    parts = []
    for start in range(0, len(images), 1024):
        pixels = torch.from_numpy(images[start : start + 1024]).to(device)
        factor = -(-pixels.shape[-1] // LARGEST_THUMBNAIL)
        if factor > 1:
            pixels = F.avg_pool2d(pixels.float(), factor).round().to(torch.uint8)
        parts.append(pixels.flatten(start_dim=1))
    return torch.cat(parts)
