"""Pixels of downscaled images, the space in which near copies are searched by eye."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_THUMBNAIL = 64  # pixels; finer detail differs between any two slices


def downsampled_pixels(images: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Return the pixels of downscaled images, one row each.

    Args:
        images: uint8 [N, C, H, W].

    Returns:
        uint8 [N, C * h * w], averaged over squares until a side has at most 64 pixels.
    """
    parts = []
    for start in range(0, len(images), 1024):
        pixels = torch.from_numpy(images[start : start + 1024]).to(device)
        factor = -(-pixels.shape[-1] // LARGEST_THUMBNAIL)
        if factor > 1:
            pixels = F.avg_pool2d(pixels.float(), factor).round().to(torch.uint8)
        parts.append(pixels.flatten(start_dim=1))
    return torch.cat(parts)
