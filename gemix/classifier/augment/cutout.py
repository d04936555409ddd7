"""Cutout: a square of each image is set to the training set's mean grey.

DeVries and Taylor, "Improved regularization of convolutional neural networks with Cutout", 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gemix.classifier.augment.base import AugmentContext

SIDE = 0.5  # of the image's side, as the paper has it for CIFAR-10


def cutout(images: Tensor, targets: Tensor, context: AugmentContext) -> tuple[Tensor, Tensor]:
    """Fill a square around a random pixel with 0, the mean; it may reach over the border."""
    draws = context.uniform(3, images.device)
    images = context.mirrored(images, draws[:, 2])
    height, width = images.shape[-2:]
    rows = _inside(draws[:, 0] * height, SIDE * height / 2, height)
    columns = _inside(draws[:, 1] * width, SIDE * width / 2, width)
    square = rows[:, None, :, None] & columns[:, None, None, :]
    return images.masked_fill(square, 0.0), targets


def _inside(centre: Tensor, half: float, size: int) -> Tensor:
    """Return which pixels of a line are within `half` of each centre: bool [n, size]."""
    places = torch.arange(size, device=centre.device) + 0.5
    return (places - centre[:, None]).abs() < half
