"""CT augmentation: light variations as between scanners and patients' positions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gemix.classifier.augment.base import AugmentContext

MAX_SHIFT = 0.06  # of the image's side
MAX_ZOOM = 0.06
MAX_TURN = math.radians(4)
MAX_CONTRAST = 0.1
MAX_BRIGHTNESS = 0.1  # in standard deviations of the training set


def ct(images: Tensor, targets: Tensor, context: AugmentContext) -> tuple[Tensor, Tensor]:
    """Vary position, size, tilt, contrast and brightness of each image; keep the targets."""
    draws = context.uniform(7, images.device)
    shift_x, shift_y, zoom, turn, contrast, brightness = (2 * draws[:, :6] - 1).unbind(dim=1)
    scale = 1 + MAX_ZOOM * zoom
    mirror = torch.where(draws[:, 6] < 0.5, -1.0, 1.0) if context.horizontal_flip else 1.0
    cos, sin = torch.cos(MAX_TURN * turn) * scale, torch.sin(MAX_TURN * turn) * scale
    # affine_grid counts in half sides
    rows = [cos * mirror, -sin, 2 * MAX_SHIFT * shift_x, sin * mirror, cos, 2 * MAX_SHIFT * shift_y]
    matrix = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    column = (-1, 1, 1, 1)
    varied = moved * (1 + MAX_CONTRAST * contrast).view(column)
    return varied + (MAX_BRIGHTNESS * brightness).view(column), targets
