"""TrivialAugment: one random operation of random strength an image, by torchvision.

Müller and Hutter, "TrivialAugment: Tuning-free yet state-of-the-art data augmentation", ICCV 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gemix.classifier.augment.base import AugmentContext
from gemix.classifier.augment.grey_levels import GreyLevels


def trivial(images: Tensor, targets: Tensor, context: AugmentContext) -> tuple[Tensor, Tensor]:
    """Apply TrivialAugmentWide to each image; grey levels between its darkest and brightest."""
    from torchvision.transforms.v2 import TrivialAugmentWide  # takes seconds to import

    operation = TrivialAugmentWide()
    levels = GreyLevels.of(images)
    coarse = (levels.values * 255).round().to(torch.uint8).cpu()
    seeds = (context.uniform(2, torch.device("cpu")) * 2**24).to(torch.int64)
    varied = []
    with torch.random.fork_rng(devices=[]):
        for image, (high_bits, low_bits) in zip(coarse, seeds.tolist(), strict=True):
            # torchvision draws from the global generator of the CPU
            torch.default_generator.manual_seed(high_bits << 24 | low_bits)
            mirrored = image.flip(-1) if context.horizontal_flip and low_bits % 2 else image
            varied.append(operation(mirrored))
    return levels.restored(torch.stack(varied).to(images.device).float() / 255), targets
