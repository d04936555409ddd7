"""CT augmentation: light variations as between scanners and patients' positions."""

from __future__ import annotations

import math

from torch import Tensor

from gemix.classifier.augment.base import AugmentContext
from gemix.classifier.augment.geometric import move

MAX_SHIFT = 0.06  # of the image's side
MAX_ZOOM = 0.06
MAX_TURN = math.radians(4)
MAX_CONTRAST = 0.1
MAX_BRIGHTNESS = 0.1  # in standard deviations of the training set


def ct(images: Tensor, targets: Tensor, context: AugmentContext) -> tuple[Tensor, Tensor]:
    """Vary position, size, tilt, contrast and brightness of each image; keep the targets."""
    draws = context.uniform(7, images.device)
    signed = 2 * draws[:, :6] - 1
    zoom, turn, contrast, brightness = signed[:, 2:].unbind(dim=1)
    moved = move(
        images,
        shift=MAX_SHIFT * signed[:, :2],
        scale=1 + MAX_ZOOM * zoom,
        turn=MAX_TURN * turn,
    )
    moved = context.mirrored(moved, draws[:, 6])
    column = (-1, 1, 1, 1)
    varied = moved * (1 + MAX_CONTRAST * contrast).view(column)
    return varied + (MAX_BRIGHTNESS * brightness).view(column), targets
