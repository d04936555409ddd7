"""Affine color transformations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gemix.gan.augment.augment_set import AugmentSet, Draws


def color_transform(strength: AugmentSet, draws: Draws) -> Tensor:
    """Return affine matrices of RGB values: float64 [N, 4, 4]."""
    u, n, s = draws.uniform, draws.normal, strength
    eye = torch.eye(4, dtype=u.dtype, device=u.device)
    rgb = torch.ones_like(eye[0]) - eye[3]
    along = torch.outer(rgb, rgb) / 3  # the grey axis
    color = eye.expand(len(u), 4, 4)
    if s.brightness:
        shift = draws.gate(6, n[:, 4] * s.brightness)
        color = (eye + shift[:, None, None] * torch.outer(rgb, eye[3])) @ color
    if s.contrast:
        factor = draws.gate(7, torch.exp2(n[:, 5] * s.contrast), 1.0)
        color = (eye + (factor - 1)[:, None, None] * torch.diag(rgb)) @ color
    if s.lumaflip:
        flips = draws.gate(8, torch.floor(u[:, 8] * 2))
        color = (eye - 2 * along * flips[:, None, None]) @ color
    if s.hue:
        angle = draws.gate(9, (2 * u[:, 9] - 1) * math.pi * s.hue)
        # Rodrigues' rotation about the grey axis
        r, g, b, one = eye
        cross = torch.stack([b - g, r - b, g - r, 0 * one]) / math.sqrt(3)
        sin, cos = angle.sin()[:, None, None], angle.cos()[:, None, None]
        turned = cos * torch.diag(rgb) + sin * cross + (1 - cos) * along
        color = (turned + torch.diag(eye[3])) @ color
    if s.saturation:
        factor = draws.gate(10, torch.exp2(n[:, 6] * s.saturation), 1.0)
        color = (along + (eye - along) * factor[:, None, None]) @ color
    return color


def apply_color(images: Tensor, color: Tensor) -> Tensor:
    """Transform the values of images [N, C, H, W], C of 1 or 3, by matrices [N, 4, 4]."""
    matrix, shift = color[:, :3, :3], color[:, :3, 3]
    if images.shape[1] == 1:  # as RGB of equal channels, averaged afterwards
        factor = matrix.sum(dim=(1, 2)) / 3
        return images * factor[:, None, None, None] + shift.mean(dim=1)[:, None, None, None]
    flat = matrix @ images.flatten(2) + shift[:, :, None]
    return flat.reshape(images.shape)
