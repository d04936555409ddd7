"""Geometric augmentation: other positions, sizes and tilts of the patient, the same grey levels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gemix.classifier.augment.base import AugmentContext

MAX_SHIFT = 0.1  # of the image's side
MAX_SCALE = 1.15  # of a size; the smallest is its inverse
MAX_TURN = math.radians(10)


def geometric(images: Tensor, targets: Tensor, context: AugmentContext) -> tuple[Tensor, Tensor]:
    """Turn, shift and scale each image, more than ``ct`` does; keep the targets."""
    draws = context.uniform(5, images.device)
    shift_x, shift_y, size, turn = (2 * draws[:, :4] - 1).unbind(dim=1)
    moved = move(
        images,
        shift=MAX_SHIFT * torch.stack([shift_x, shift_y], dim=1),
        scale=MAX_SCALE**size,
        turn=MAX_TURN * turn,
    )
    return context.mirrored(moved, draws[:, 4]), targets


def move(images: Tensor, *, shift: Tensor, scale: Tensor, turn: Tensor) -> Tensor:
    """Return images [n, C, H, W] seen through a frame that is turned, scaled and shifted.

    What lies over the border repeats the pixels at the border.

    Args:
        shift: of the frame along x and y, in sides of the image, [n, 2].
        scale: of the frame, [n]; above 1 the content is smaller.
        turn: of the frame, in radians, [n].
    """
    cos, sin = torch.cos(turn) * scale, torch.sin(turn) * scale
    shift_x, shift_y = (2 * shift).unbind(dim=1)  # affine_grid counts in half sides
    rows = [cos, -sin, shift_x, sin, cos, shift_y]
    matrix = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
