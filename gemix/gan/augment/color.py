"""Maps of RGB values, as augmentations use them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gemix.gan.augment.augment_set import AugmentSet, Draws


def colour_transform(strength: AugmentSet, draws: Draws) -> Tensor:
    """The homogeneous map of RGB values: float64 [N, 4, 4]."""
    u, n, s = draws.uniform, draws.normal, strength
    eye = torch.eye(4, dtype=u.dtype, device=u.device)
    rgb = torch.ones_like(eye[0]) - eye[3]
    along = torch.outer(rgb, rgb) / 3  # the grey axis
    colour = eye.expand(len(u), 4, 4)
    if s.brightness:
        shift = draws.chosen(6, n[:, 4] * s.brightness)
        colour = (eye + shift[:, None, None] * torch.outer(rgb, eye[3])) @ colour
    if s.contrast:
        factor = draws.chosen(7, torch.exp2(n[:, 5] * s.contrast), 1.0)
        colour = (eye + (factor - 1)[:, None, None] * torch.diag(rgb)) @ colour
    if s.lumaflip:
        flips = draws.chosen(8, torch.floor(u[:, 8] * 2))
        colour = (eye - 2 * along * flips[:, None, None]) @ colour
    if s.hue:
        angle = draws.chosen(9, (2 * u[:, 9] - 1) * math.pi * s.hue)
        # Rodrigues' rotation about the grey axis: green minus blue, and so on round the circle
        r, g, b, one = eye
        cross = torch.stack([b - g, r - b, g - r, 0 * one]) / math.sqrt(3)
        sin, cos = angle.sin()[:, None, None], angle.cos()[:, None, None]
        turned = cos * torch.diag(rgb) + sin * cross + (1 - cos) * along
        colour = (turned + torch.diag(eye[3])) @ colour
    if s.saturation:
        factor = draws.chosen(10, torch.exp2(n[:, 6] * s.saturation), 1.0)
        colour = (along + (eye - along) * factor[:, None, None]) @ colour
    return colour


def recolour(images: Tensor, colour: Tensor) -> Tensor:
    """Maps the values of images [N, C, H, W], C of 1 or 3, by [N, 4, 4]."""
    matrix, shift = colour[:, :3, :3], colour[:, :3, 3]
    if images.shape[1] == 1:  # grey as RGB of equal channels, averaged again afterwards
        factor = matrix.sum(dim=(1, 2)) / 3
        return images * factor[:, None, None, None] + shift.mean(dim=1)[:, None, None, None]
    flat = matrix @ images.flatten(2) + shift[:, :, None]
    return flat.reshape(images.shape)
