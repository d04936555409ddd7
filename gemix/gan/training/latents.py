"""Latents, labels and noise of a training step, a function of (seed, step, sample position)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gemix.core.rng import Stream
from gemix.core.torch_rng import draw
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import TrainingDataset
from gemix.gan.losses.functional import path_length_noise
from gemix.gan.models.generator import Generator


class Latents(NamedTuple):
    """What n images are made of.

    Attributes:
        label: [n, K].
        z: two latents a sample, its own and the one that style mixing switches to [n, 2, z_dim].
        keep: which styles stay those of the first, bool [n, num_ws, 1]; None without style mixing.
        noise: one tensor a styled convolution, [n, 1, H, W].
    """

    label: Tensor
    z: Tensor
    keep: Tensor | None
    noise: list[Tensor]


def styles(generator: Generator, latents: Latents) -> Tensor:
    """The styles ws [n, num_ws, w_dim], mixed."""
    ws = generator.map(latents.z[:, 0], latents.label)
    if latents.keep is None:
        return ws
    return torch.where(latents.keep, ws, generator.map(latents.z[:, 1], latents.label))


def noise_size(shapes: Sequence[tuple[int, int]]) -> int:
    """How many numbers the noise of one sample has, for layers of such heights and widths."""
    return sum(height * width for height, width in shapes)


def shaped_noise(flat: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Random numbers [n, noise_size(shapes)] as one tensor a layer, [n, 1, H, W]."""
    parts = flat.split([height * width for height, width in shapes], dim=1)
    return [part.reshape(-1, 1, *shape) for part, shape in zip(parts, shapes, strict=True)]


class LatentSource:
    """Draws what the generator is fed with while training, on the device of the data.

    Drawing is plain tensor operations of the step, so it compiles with what it is drawn for.

    Args:
        positions: this worker's positions in the global batch, int64 [n].
        path_positions: those of them whose path lengths are measured, int64 [m].
    """

    def __init__(
        self,
        generator: Generator,
        data: TrainingDataset,
        config: GanConfig,
        positions: Tensor,
        path_positions: Tensor,
    ):
        self.generator, self.data = generator, data
        self.positions, self.path_positions = positions, path_positions
        self.seed, self.style_mixing_prob = config.seed, config.style_mixing_prob

    def draw(self, stream: Stream, step: Tensor) -> Latents:
        """What this worker's images of a step, int64 [1], are made of."""
        positions = self.path_positions if stream is Stream.PATH_LENGTH else self.positions
        z_dim, shapes = self.generator.architecture.z_dim, self.generator.noise_shapes
        size = noise_size(shapes)
        uniform, normal = draw(
            self.seed, stream, positions, step, uniforms=3, normals=2 * z_dim + size
        )
        z, noise = normal.split([2 * z_dim, size], dim=1)
        return Latents(
            self.data.random_labels(uniform[:, 0]),
            z.unflatten(1, (2, z_dim)),
            self._before_crossover(uniform[:, 1:]) if self.style_mixing_prob else None,
            shaped_noise(noise, shapes),
        )

    def path_noise(self, step: Tensor) -> Tensor:
        """The noise images of the path length penalty [m, C, H, W]."""
        positions, shape = self.path_positions, self.data.shape
        stream, size = Stream.PATH_LENGTH_NOISE, math.prod(shape)
        _, noise = draw(self.seed, stream, positions, step, normals=size)
        return path_length_noise(noise.unflatten(1, shape))

    def _before_crossover(self, uniform: Tensor) -> Tensor:
        """Which styles stay those of the first latent: bool [n, num_ws, 1].

        With probability `style_mixing_prob` a sample changes its latent at a layer from 1 on
        (Karras et al. 2019, section 3.1). `uniform` [n, 2] says where, and whether.
        """
        num_ws = self.generator.architecture.num_ws
        crossover = 1 + torch.floor(uniform[:, :1] * (num_ws - 1))
        layer = torch.arange(num_ws, device=uniform.device)
        return ((layer < crossover) | (uniform[:, 1:] >= self.style_mixing_prob))[:, :, None]
