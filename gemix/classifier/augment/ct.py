"""From 8-bit images to what a network is shown: normalisation, and variation for training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gemix.core.rng import Stream, uniform

MAX_SHIFT = 0.06  # of the image's side
MAX_ZOOM = 0.06
MAX_TURN = math.radians(4)
MAX_CONTRAST = 0.1
MAX_BRIGHTNESS = 0.1  # in standard deviations of the training set
_CHUNK = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalization:
    """Mean and standard deviation of each channel over a training set, of values 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: np.ndarray) -> Self:
        """Those of uint8 images [N, C, H, W], exact."""
        counts = np.zeros((images.shape[1], 256), np.int64)
        for start in range(0, len(images), _CHUNK):
            for channel, total in enumerate(counts):
                total += np.bincount(images[start : start + _CHUNK, channel].ravel(), minlength=256)
        values = np.arange(256) / 255
        shares = counts / counts.sum(axis=1, keepdims=True)
        mean = shares @ values
        variance = shares @ values**2 - mean**2
        std = np.sqrt(np.maximum(variance, 1e-6))  # a set of one constant grey
        return cls(mean=tuple(mean.tolist()), std=tuple(std.tolist()))

    def __call__(self, images: Tensor) -> Tensor:
        """Images 0 to 255 [N, C, H, W] as float32 of mean 0 and standard deviation 1."""
        shape = (1, -1, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(shape) * 255
        std = torch.tensor(self.std, device=images.device).view(shape) * 255
        return (images.float() - mean) / std


def augment(
    images: Tensor, *, seed: int, positions: Iterable[int], step: int, horizontal_flip: bool
) -> Tensor:
    """Varies images as a CT scanner would: position, size, tilt, contrast and brightness.

    Args:
        images: normalised, float32 [n, C, H, W].
        seed, step: of the training.
        positions: place of each image in the global batch; with `seed` and `step` it decides how
            the image is varied, whichever worker does it.
        horizontal_flip: whether half of the images are mirrored.

    Returns:
        float32 [n, C, H, W].
    """
    drawn = uniform(seed, Stream.CLASSIFIER_AUGMENT, positions, (7,), step)
    draws = torch.from_numpy(drawn).to(images.device)
    shift_x, shift_y, zoom, turn, contrast, brightness = (2 * draws[:, :6] - 1).unbind(dim=1)
    scale = 1 + MAX_ZOOM * zoom
    mirror = torch.where(draws[:, 6] < 0.5, -1.0, 1.0) if horizontal_flip else 1.0
    cos, sin = torch.cos(MAX_TURN * turn) * scale, torch.sin(MAX_TURN * turn) * scale
    # affine_grid counts in half sides
    rows = [cos * mirror, -sin, 2 * MAX_SHIFT * shift_x, sin * mirror, cos, 2 * MAX_SHIFT * shift_y]
    matrix = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    column = (-1, 1, 1, 1)
    return moved * (1 + MAX_CONTRAST * contrast).view(column) + (MAX_BRIGHTNESS * brightness).view(
        column
    )
