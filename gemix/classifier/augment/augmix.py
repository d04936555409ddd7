"""AugMix: a weighted mean of an image and of chains of random operations on it.

Hendrycks et al., "AugMix: A simple data processing method to improve robustness and uncertainty",
ICLR 2020. It comes without the paper's Jensen-Shannon consistency loss, which compares three views
of each image: an augmentation varies a batch, and leaves the loss to the training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gemix.classifier.augment.base import AugmentContext
from gemix.classifier.augment.grey_levels import GreyLevels
from gemix.classifier.augment.operations import OPERATIONS

CHAINS = 3  # as in the paper, the next three too
MAX_DEPTH = 3  # operations of a chain, from 1 on
STRENGTHS = (0.01, 0.3)  # severity 3 of 10

_DRAWS_OF_A_CHAIN = 2 + 3 * MAX_DEPTH


def augmix(images: Tensor, targets: Tensor, context: AugmentContext) -> tuple[Tensor, Tensor]:
    """Return m x + (1 - m) sum_i w_i chain_i(x) for each image; keep the targets.

    The weights w are Dirichlet(1, 1, 1), and m is Beta(1, 1) (algorithm 1 with alpha = 1). Grey
    levels are between the image's darkest and brightest.
    """
    draws = context.uniform(2 + CHAINS * _DRAWS_OF_A_CHAIN, torch.device("cpu"))
    levels = GreyLevels.of(context.mirrored(images, draws[:, 0].to(images.device)))
    kept = draws[:, 1].tolist()  # Beta(1, 1) is uniform
    chains = draws[:, 2:].view(-1, CHAINS, _DRAWS_OF_A_CHAIN)
    shares = dirichlet(chains[:, :, 0]).tolist()
    varied = []
    for image, keep, weights, numbers in zip(
        levels.values, kept, shares, chains[:, :, 1:].tolist(), strict=True
    ):
        mean = keep * image
        for weight, of_chain in zip(weights, numbers, strict=True):
            mean = mean + (1 - keep) * weight * _chain(image, of_chain)
        varied.append(mean)
    return levels.restored(torch.stack(varied)), targets


def dirichlet(draws: Tensor) -> Tensor:
    """Return Dirichlet(1, ..., 1) weights [n, k] of uniform numbers in [0, 1), [n, k].

    They are exponential numbers divided by their sum.
    """
    exponential = -torch.log1p(-draws) + torch.finfo(draws.dtype).tiny  # all of them may be 0
    return exponential / exponential.sum(dim=1, keepdim=True)


def _chain(image: Tensor, numbers: list[float]) -> Tensor:
    """Return the image [C, H, W] after operations: a depth, then three uniform numbers for each."""
    depth, *rest = numbers
    for start in range(0, 3 * (1 + int(depth * MAX_DEPTH)), 3):
        choice, sign, size = rest[start : start + 3]
        low, high = STRENGTHS
        strength = low + (high - low) * size
        operation = OPERATIONS[int(choice * len(OPERATIONS))]
        image = operation(image, strength if sign < 0.5 else -strength)
    return image
