"""mixup: weighted means of two images and of their labels.

Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018.
"""

from __future__ import annotations

from torch import Tensor

from gemix.classifier.augment.base import AugmentContext
from gemix.classifier.augment.mixing.pairs import mixed, weighted_pairs

ALPHA = 0.2  # of the Beta distribution, as the paper has it for ImageNet


def mixup(images: Tensor, targets: Tensor, context: AugmentContext) -> tuple[Tensor, Tensor]:
    """Return lambda x_i + (1 - lambda) x_j, and the same of the labels; lambda ~ Beta(a, a)."""
    weight, other = weighted_pairs(context, ALPHA, images.device)
    return mixed(images, weight, other), mixed(targets, weight, other)
