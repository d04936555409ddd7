"""No augmentation, except mirroring where ``classifier.horizontal_flip`` asks for it."""

from __future__ import annotations

from torch import Tensor

from gemix.classifier.augment.base import AugmentContext


def none(images: Tensor, targets: Tensor, context: AugmentContext) -> tuple[Tensor, Tensor]:
    """Return images and targets as they are, half of the images mirrored if asked for."""
    return context.mirrored(images, context.uniform(1, images.device)[:, 0]), targets
