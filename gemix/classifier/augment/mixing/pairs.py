"""Pairs of images of a batch, and the weights at which they are mixed."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from gemix.classifier.augment.base import AugmentContext


def partners(draws: Tensor) -> Tensor:
    """Return a permutation of the images, int64 [n]: the order of uniform numbers [n].

    Partners are of the same pass of the same worker, and may be the image itself.
    """
    return draws.argsort()


def beta(draws: Tensor, alpha: float) -> Tensor:
    """Return Beta(alpha, alpha) numbers of uniform ones, float32 [n], by the inverse CDF."""
    values = betaincinv(alpha, alpha, draws.cpu().numpy().astype(np.float64))
    return torch.from_numpy(values.astype(np.float32)).to(draws.device)


def weighted_pairs(
    context: AugmentContext, alpha: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Draw the weight lambda ~ Beta(alpha, alpha) and the partner of each image.

    Returns:
        Weights, float32 [n], and partners, int64 [n], on the device.
    """
    draws = context.uniform(2, torch.device("cpu"))
    return beta(draws[:, 0], alpha).to(device), partners(draws[:, 1]).to(device)


def mixed(values: Tensor, weight: Tensor, other: Tensor) -> Tensor:
    """Return lambda v_i + (1 - lambda) v_j of images, features or labels: as `values` [n, ...]."""
    weight = weight.view(-1, *[1] * (values.ndim - 1))
    return weight * values + (1 - weight) * values[other]
