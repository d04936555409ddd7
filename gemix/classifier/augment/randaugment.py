"""RandAugment: a few random operations of one strength an image.

Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space",
NeurIPS 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gemix.classifier.augment.base import AugmentContext
from gemix.classifier.augment.grey_levels import GreyLevels
from gemix.classifier.augment.operations import OPERATIONS

COUNT = 2  # operations an image, as the paper has it for ImageNet
STRENGTH = 9 / 30  # the paper's magnitude 9 for ResNet-50


def randaugment(images: Tensor, targets: Tensor, context: AugmentContext) -> tuple[Tensor, Tensor]:
    """Apply to each image operations drawn with replacement, the identity among them.

    Their directions are random. Grey levels are between the image's darkest and brightest.
    """
    draws = context.uniform(1 + 2 * COUNT, torch.device("cpu"))
    levels = GreyLevels.of(context.mirrored(images, draws[:, 0].to(images.device)))
    varied = []
    for image, numbers in zip(levels.values, draws[:, 1:].tolist(), strict=True):
        for choice, sign in zip(numbers[::2], numbers[1::2], strict=True):
            number = int(choice * (1 + len(OPERATIONS)))
            if number < len(OPERATIONS):  # else the identity
                image = OPERATIONS[number](image, STRENGTH if sign < 0.5 else -STRENGTH)
        varied.append(image)
    return levels.restored(torch.stack(varied)), targets
