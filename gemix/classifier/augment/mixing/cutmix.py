"""CutMix: a rectangle of each image is that of another one; labels follow the areas.

Yun et al., "CutMix: Regularization strategy to train strong classifiers with localizable features",
ICCV 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gemix.classifier.augment.base import AugmentContext
from gemix.classifier.augment.mixing.pairs import partners

PROBABILITY = 0.5  # of an image to be cut into, as the paper has it for CIFAR


def cutmix(images: Tensor, targets: Tensor, context: AugmentContext) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of area 1 - lambda, lambda ~ U(0, 1), clipped at the border.

    The label's lambda is the share of pixels that remain (equation 1 and section 3.1).
    """
    draws = context.uniform(5, images.device)
    other = partners(draws[:, 0])
    side = torch.sqrt(1 - draws[:, 1])
    side = torch.where(draws[:, 4] < PROBABILITY, side, torch.zeros_like(side))
    height, width = images.shape[-2:]
    rows = _span(draws[:, 2], side, height)
    columns = _span(draws[:, 3], side, width)
    box = rows[:, :, None] & columns[:, None, :]
    mixed = torch.where(box[:, None], images[other], images)
    kept = 1 - box.float().mean(dim=(1, 2))[:, None]
    return mixed, kept * targets + (1 - kept) * targets[other]


def _span(centre: Tensor, side: Tensor, size: int) -> Tensor:
    """Return the pixels of a line that a box covers: bool [n, size]."""
    centre, half = centre[:, None] * size, side[:, None] * size / 2
    places = torch.arange(size, device=centre.device) + 0.5
    return (places - centre).abs() < half
