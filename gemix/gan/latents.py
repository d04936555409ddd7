"""Latents, labels and noise of a training step, a function of (seed, step, sample position)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gemix.gan.config import GanConfig
from gemix.gan.dataset import TrainingData
from gemix.gan.generator import Generator
from gemix.gan.losses import path_length_noise
from gemix.gan.networks import ImageGenerator
from gemix.randomness import Stream, normal, sample_rng

# Each phase of a step has noise of its own.
_PHASES = {Stream.G_LATENT: 0, Stream.D_LATENT: 1, Stream.PATH_LENGTH: 2}


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


class LatentSource:
    """Draws what the generator is fed with while training.

    Args:
        positions: this worker's positions in the global batch.
    """

    def __init__(
        self,
        generator: Generator,
        data: TrainingData,
        config: GanConfig,
        positions: Sequence[int],
    ):
        self.generator, self.data, self.config = generator, data, config
        self.positions = list(positions)
        self.device = data.device

    def draw(self, stream: Stream, step: int, shrink: int = 1) -> Latents:
        """What this worker's images of a step are made of.

        `shrink` takes only the first of so many parts of the batch.
        """
        positions = self.positions[: math.ceil(len(self.positions) / shrink)]
        seed, phase_step = self.config.seed, step * len(_PHASES) + _PHASES[stream]
        label = self.data.random_labels(Stream.TRAIN_LABEL, phase_step, positions)
        z = normal(seed, stream, positions, (2, self.generator.architecture.z_dim), step)
        keep = None
        if self.config.style_mixing_prob:
            keep = self._before_crossover(positions, phase_step)[:, :, None].to(self.device)
        noise = draw_noise(self.generator, seed, positions, phase_step, self.device)
        return Latents(label, z.to(self.device), keep, noise)

    def path_noise(self, count: int, step: int) -> Tensor:
        """The noise images of the path length penalty, for the first `count` [n, C, H, W]."""
        positions, shape = self.positions[:count], self.data.shape
        noise = normal(self.config.seed, Stream.PATH_LENGTH_NOISE, positions, shape, step)
        return path_length_noise(noise.to(self.device))

    def _before_crossover(self, positions: Sequence[int], step: int) -> Tensor:
        """Which styles stay those of the first latent: bool [n, num_ws].

        With probability `style_mixing_prob` a sample changes its latent at a layer from 1 on
        (Karras et al. 2019, section 3.1).
        """
        num_ws = self.generator.architecture.num_ws
        keep = torch.ones(len(positions), num_ws, dtype=torch.bool)
        for row, position in enumerate(positions):
            rng = sample_rng(self.config.seed, Stream.STYLE_MIXING, position, step)
            if rng.random() < self.config.style_mixing_prob:
                keep[row, rng.integers(1, num_ws) :] = False
        return keep


def draw_noise(
    generator: ImageGenerator, seed: int, indices: Sequence[int], step: int, device: torch.device
) -> list[Tensor]:
    """Fresh noise of every shape that the generator takes, [n, 1, H, W] each."""
    shapes = generator.noise_shapes
    sizes = [height * width for height, width in shapes]
    flat = normal(seed, Stream.SYNTHESIS_NOISE, indices, (sum(sizes),), step).to(device)
    return [
        part.reshape(-1, 1, *shape)
        for part, shape in zip(flat.split(sizes, dim=1), shapes, strict=True)
    ]
