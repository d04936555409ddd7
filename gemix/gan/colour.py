"""Maps of RGB values, as augmentations use them."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from gemix.gan.augment_set import AugmentSet, Draws


def colour_transform(strength: AugmentSet, draws: Draws) -> np.ndarray:
    """The homogeneous map of RGB values: [N, 4, 4]."""
    u, n, s = draws.uniform, draws.normal, strength
    count = len(u)
    colour = np.tile(np.eye(4), (count, 1, 1))
    luma = np.array([1, 1, 1, 0]) / math.sqrt(3)
    along = np.outer(luma, luma)
    if s.brightness:
        shift = np.tile(np.eye(4), (count, 1, 1))
        shift[:, :3, 3] = draws.chosen(6, n[:, 4] * s.brightness)[:, None]
        colour = shift @ colour
    if s.contrast:
        factor = draws.chosen(7, np.exp2(n[:, 5] * s.contrast), 1.0)
        spread = np.tile(np.eye(4), (count, 1, 1))
        spread[:, :3, :3] *= factor[:, None, None]
        colour = spread @ colour
    if s.lumaflip:
        flips = draws.chosen(8, np.floor(u[:, 8] * 2))
        colour = (np.eye(4) - 2 * along * flips[:, None, None]) @ colour
    if s.hue:
        angle = draws.chosen(9, (2 * u[:, 9] - 1) * math.pi * s.hue)
        colour = _rotation_about_luma(angle, luma[:3]) @ colour
    if s.saturation:
        factor = draws.chosen(10, np.exp2(n[:, 6] * s.saturation), 1.0)
        colour = (along + (np.eye(4) - along) * factor[:, None, None]) @ colour
    return colour


def _rotation_about_luma(angle: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Rodrigues' rotation about the grey axis, homogeneous: [N, 4, 4]."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    sin, cos = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    rotation = np.tile(np.eye(4), (len(angle), 1, 1))
    rotation[:, :3, :3] = cos * np.eye(3) + sin * cross + (1 - cos) * np.outer(axis, axis)
    return rotation


def recolour(images: Tensor, colour: Tensor) -> Tensor:
    """Maps the values of images [N, C, H, W], C of 1 or 3, by [N, 4, 4]."""
    matrix, shift = colour[:, :3, :3], colour[:, :3, 3]
    if images.shape[1] == 1:  # grey as RGB of equal channels, averaged again afterwards
        factor = matrix.sum(dim=(1, 2)) / 3
        return images * factor[:, None, None, None] + shift.mean(dim=1)[:, None, None, None]
    flat = matrix @ images.flatten(2) + shift[:, :, None]
    return flat.reshape(images.shape)
