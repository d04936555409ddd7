"""Photometric augmentation: other exposures, windows and doses, every pixel in its place."""

from __future__ import annotations

import torch
from torch import Tensor

from gemix.classifier.augment.base import AugmentContext
from gemix.classifier.augment.grey_levels import GreyLevels

MAX_GAMMA = 1.3  # the smallest is its inverse
MAX_CONTRAST = 1.2  # the smallest is its inverse
MAX_BRIGHTNESS = 0.2  # in standard deviations of the training set
MAX_NOISE = 0.1  # standard deviation, in those of the training set


def photometric(images: Tensor, targets: Tensor, context: AugmentContext) -> tuple[Tensor, Tensor]:
    """Vary gamma, contrast, brightness and white noise of each image; keep the targets.

    Gamma bends the grey levels between the darkest and the brightest pixel, contrast is about the
    mean. The noise is the same in all channels: they are windows of one slice.
    """
    height, width = images.shape[-2:]
    draws = context.uniform(5 + height * width, images.device)
    gamma, contrast, brightness = (2 * draws[:, :3, None, None, None] - 1).unbind(dim=1)
    levels = GreyLevels.of(context.mirrored(images, draws[:, 3]))
    varied = levels.restored(levels.values ** (MAX_GAMMA**gamma))
    mean = varied.mean(dim=(1, 2, 3), keepdim=True)
    varied = mean + MAX_CONTRAST**contrast * (varied - mean) + MAX_BRIGHTNESS * brightness
    # a uniform number may be 0, whose quantile is infinite
    noise = torch.special.ndtri(draws[:, 5:].clamp_min(2.0**-25)).view(-1, 1, height, width)
    return varied + MAX_NOISE * draws[:, 4].view(-1, 1, 1, 1) * noise, targets
