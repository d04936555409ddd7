"""Latents, labels and noise of a training step, a function of (seed, step, batch_index)."""

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
from gemix.gan.losses.regularizers import path_length_noise
from gemix.gan.models.generator import Generator


class Latents(NamedTuple):
    """The inputs of the generator for n images.

    Attributes:
        label: what the generator is asked for, [n, K].
        shown_label: the label under which the discriminator is shown the image, [n, K].
        z: two latents a sample, its own and the one that style mixing switches to [n, 2, z_dim].
        mixing_mask: True for the styles of the first latent, bool [n, num_ws, 1]; None without
            style mixing.
        noise: one tensor a styled convolution, [n, 1, H, W].
    """

    label: Tensor
    shown_label: Tensor
    z: Tensor
    mixing_mask: Tensor | None
    noise: list[Tensor]


def mixed_styles(generator: Generator, latents: Latents) -> Tensor:
    """Map both latents to styles and mix these: ws [n, num_ws, w_dim]."""
    ws = generator.map(latents.z[:, 0], latents.label)
    if latents.mixing_mask is None:
        return ws
    return torch.where(latents.mixing_mask, ws, generator.map(latents.z[:, 1], latents.label))


def noise_numel(shapes: Sequence[tuple[int, int]]) -> int:
    """Return the number of noise values a sample takes, for layers of such heights and widths."""
    return sum(height * width for height, width in shapes)


def split_noise(flat: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Split noise [n, noise_numel(shapes)] into one tensor a layer, [n, 1, H, W]."""
    parts = flat.split([height * width for height, width in shapes], dim=1)
    return [part.reshape(-1, 1, *shape) for part, shape in zip(parts, shapes, strict=True)]


class LatentSampler:
    """Draw the generator's inputs while training, on the device of the data.

    Drawing is plain tensor operations of the step, so it compiles together with the networks.

    With probability `label_mixing` the label asked for is lambda a + (1 - lambda) b, of the labels
    a and b of two training images and lambda uniform in [0, 1]. No real image has such a label, so
    a discriminator shown it would know the image for generated. It is shown a with probability
    lambda, else b: what deceives it is an image whose own class probabilities are those of the
    mixture.
    """

    def __init__(self, generator: Generator, data: TrainingDataset, config: GanConfig):
        self.generator, self.data = generator, data
        self.seed, self.style_mixing_prob = config.seed, config.style_mixing_prob
        self.label_mixing = config.label_mixing if generator.architecture.label_dim else 0.0

    def draw(self, stream: Stream, step: Tensor, batch_index: Tensor) -> Latents:
        """Draw the inputs of images of a step, int64 [1], by their indices in its batch [n]."""
        z_dim, shapes = self.generator.architecture.z_dim, self.generator.noise_shapes
        size = noise_numel(shapes)
        uniform, normal = draw(
            self.seed,
            stream,
            batch_index,
            step,
            uniforms=7 if self.label_mixing else 3,
            normals=2 * z_dim + size,
        )
        label = shown_label = self.data.random_labels(uniform[:, 0])
        if self.label_mixing:
            label, shown_label = self._mixed_labels(label, uniform[:, 3:])
        z, noise = normal.split([2 * z_dim, size], dim=1)
        return Latents(
            label,
            shown_label,
            z.unflatten(1, (2, z_dim)),
            self._mixing_mask(uniform[:, 1:3]) if self.style_mixing_prob else None,
            split_noise(noise, shapes),
        )

    def _mixed_labels(self, first: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Return the labels to ask for and those to show, [n, K] each.

        Args:
            first: the labels a [n, K].
            uniform: draws b, whether to mix, lambda and which of a and b is shown, [n, 4].
        """
        second = self.data.random_labels(uniform[:, 0])
        is_mixed, share, pick = (column[:, None].float() for column in uniform[:, 1:].unbind(dim=1))
        share = torch.where(is_mixed < self.label_mixing, share, 1.0)
        mixed = share * first + (1 - share) * second
        return mixed, torch.where(pick < share, first, second)

    def path_noise(self, step: Tensor, batch_index: Tensor) -> Tensor:
        """Draw the noise images of the path length penalty [m, C, H, W]."""
        stream, shape = Stream.PATH_LENGTH_NOISE, self.data.shape
        _, noise = draw(self.seed, stream, batch_index, step, normals=math.prod(shape))
        return path_length_noise(noise.unflatten(1, shape))

    def _mixing_mask(self, uniform: Tensor) -> Tensor:
        """Return the mask of the styles before each sample's crossover: bool [n, num_ws, 1].

        With probability `style_mixing_prob` a sample changes its latent at a layer from 1 on
        (Karras et al. 2019, section 3.1). `uniform` [n, 2] decides where, and whether.
        """
        num_ws = self.generator.architecture.num_ws
        crossover = 1 + torch.floor(uniform[:, :1] * (num_ws - 1))
        layer = torch.arange(num_ws, device=uniform.device)
        return ((layer < crossover) | (uniform[:, 1:] >= self.style_mixing_prob))[:, :, None]
