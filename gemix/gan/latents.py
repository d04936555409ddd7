"""Latents, labels and noise of a training step, a function of (seed, step, sample position)."""

from __future__ import annotations

import math
from collections.abc import Sequence

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

    def styles(
        self, stream: Stream, step: int, shrink: int = 1
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Labels [n, K], styles ws [n, num_ws, w_dim] with style mixing, and noise.

        `shrink` takes only the first of so many parts of the batch.
        """
        positions = self.positions[: math.ceil(len(self.positions) / shrink)]
        seed, phase_step = self.config.seed, step * len(_PHASES) + _PHASES[stream]
        label = self.data.random_labels(Stream.TRAIN_LABEL, phase_step, positions)
        # two latents a sample: its own, and the one that style mixing may switch to
        z = normal(seed, stream, positions, (2, self.generator.architecture.z_dim), step)
        z = z.to(self.device)
        ws = self.generator.map(z[:, 0], label)
        if self.config.style_mixing_prob:
            keep = self._before_crossover(positions, phase_step).to(self.device)
            if not keep.all():
                ws = torch.where(keep[:, :, None], ws, self.generator.map(z[:, 1], label))
        noise = draw_noise(self.generator, seed, positions, phase_step, self.device)
        return label, ws, noise

    def path_noise(self, images: Tensor, step: int) -> Tensor:
        """The noise image of the path length penalty for `images` [n, C, H, W]."""
        positions = self.positions[: len(images)]
        noise = normal(
            self.config.seed, Stream.PATH_LENGTH_NOISE, positions, tuple(images.shape[1:]), step
        )
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
