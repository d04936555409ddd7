"""Pairs of images of a batch, and the weights at which they are mixed."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor


def partners(draws: Tensor) -> Tensor:
    """Return a permutation of the images, int64 [n]: the order of uniform numbers [n].

    Partners are of the same pass of the same worker, and may be the image itself.
    """
    return draws.argsort()


def beta(draws: Tensor, alpha: float) -> Tensor:
    """Return Beta(alpha, alpha) numbers of uniform ones, float32 [n], by the inverse CDF."""
    values = betaincinv(alpha, alpha, draws.cpu().numpy().astype(np.float64))
    return torch.from_numpy(values.astype(np.float32)).to(draws.device)
