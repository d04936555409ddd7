"""Normalization of images by the statistics of a training set."""

from __future__ import annotations

import dataclasses
from typing import Self

import numpy as np
import torch
from torch import Tensor

_CHUNK = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalization:
    """Mean and standard deviation of each channel over a training set, of values 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: np.ndarray) -> Self:
        """Return the exact statistics of uint8 images [N, C, H, W]."""
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
        """Return images 0 to 255 [N, C, H, W] as float32 of mean 0 and standard deviation 1."""
        shape = (1, -1, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(shape) * 255
        std = torch.tensor(self.std, device=images.device).view(shape) * 255
        return (images.float() - mean) / std
