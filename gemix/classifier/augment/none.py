"""No augmentation, except mirroring where ``classifier.horizontal_flip`` asks for it."""

from __future__ import annotations

import torch
from torch import Tensor

from gemix.classifier.augment.base import AugmentContext


def none(images: Tensor, targets: Tensor, context: AugmentContext) -> tuple[Tensor, Tensor]:
    """Return images and targets as they are, half of the images mirrored if asked for."""
    if context.horizontal_flip:
        mirrored = context.uniform(1, images.device)[:, 0] < 0.5
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
    return images, targets
