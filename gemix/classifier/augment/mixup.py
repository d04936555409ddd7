"""mixup: weighted means of two images and of their labels.

Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018.
"""

from __future__ import annotations

from torch import Tensor

from gemix.classifier.augment.base import AugmentContext
from gemix.classifier.augment.pairs import beta, partners

ALPHA = 0.2  # of the Beta distribution, as the paper has it for ImageNet


def mixup(images: Tensor, targets: Tensor, context: AugmentContext) -> tuple[Tensor, Tensor]:
    """Return lambda x_i + (1 - lambda) x_j, and the same of the labels; lambda ~ Beta(a, a)."""
    draws = context.uniform(2, images.device)
    weight, other = beta(draws[:, 0], ALPHA), partners(draws[:, 1])
    shape = (-1, 1, 1, 1)
    mixed = weight.view(shape) * images + (1 - weight).view(shape) * images[other]
    labels = weight[:, None] * targets + (1 - weight)[:, None] * targets[other]
    return mixed, labels
