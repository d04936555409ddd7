"""The networks of the CGAN baseline: a label-conditional DCGAN.

The label enters as in Mirza and Osindero, "Conditional generative adversarial nets", 2014: beside
the latent in the generator, and beside the image, as one constant channel a class, in the
discriminator. A soft label is as good as a one-hot one. The layers are those of Radford et al.,
"Unsupervised representation learning with deep convolutional generative adversarial networks",
2016: strided 4x4 convolutions, ReLU and tanh in the generator, leaky ReLU in the discriminator,
no normalization at the image's end, weights from N(0, 0.02). Feature maps are as many as in the
StyleGAN2 networks of the same :class:`Architecture`, and there are layers up to any resolution.

One thing differs: where DCGAN has batch normalization, these have group normalization (Wu and He,
2018) over the channels of each sample. Batch statistics make an image depend on what else is in
its batch, and gradients on how the batch is shared out over workers; here both must depend on the
sample alone.
"""

from __future__ import annotations

import contextlib
import itertools
import math

import torch
from torch import Tensor, nn

from gemix.gan.models.architecture import Architecture
from gemix.gan.models.base import ImageGenerator

INIT_STD = 0.02
LRELU_SLOPE = 0.2
NORM_GROUPS = 8


class CganGenerator(ImageGenerator):
    """Project latent and label to a 4x4 feature map, then double it by transposed convolutions.

    There are no styles: truncation scales the latent itself towards its mean, 0.
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = a = architecture
        channels = [a.channels(resolution) for resolution in a.resolutions]
        self.project = nn.Linear(a.z_dim + a.label_dim, channels[0] * 16, bias=False)
        self.first = nn.Sequential(_group_norm(channels[0]), nn.ReLU())
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(channels[:-1]):
            layers.append(nn.ConvTranspose2d(before, after, 4, 2, padding=1, bias=False))
            layers += [_group_norm(after), nn.ReLU()]
        layers.append(nn.ConvTranspose2d(channels[-2], a.img_channels, 4, 2, padding=1))
        self.layers = nn.Sequential(*layers)
        _initialize(self)

    def forward(
        self,
        z: Tensor,
        label: Tensor | None,
        noise: list[Tensor] | None = None,
        *,
        truncation_psi: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return float32 images [N, C, H, W] from -1 to 1; there is no noise but the latent."""
        z = z * truncation_psi
        x = z if label is None else torch.cat([z, label], dim=1)
        with _autocast(dtype, z.device):
            x = self.project(x).unflatten(1, (-1, 4, 4))
            x = self.first(x.contiguous(memory_format=torch.channels_last))
            return torch.tanh(self.layers(x).float())


class CganDiscriminator(nn.Module):
    """Map images, with their labels as channels, to logits; positive means real."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = a = architecture
        channels = [a.channels(resolution) for resolution in reversed(a.resolutions[:-1])]
        layers: list[nn.Module] = [
            nn.Conv2d(a.img_channels + a.label_dim, channels[0], 4, 2, padding=1),
            nn.LeakyReLU(LRELU_SLOPE),
        ]
        for before, after in itertools.pairwise(channels):
            layers.append(nn.Conv2d(before, after, 4, 2, padding=1, bias=False))
            layers += [_group_norm(after), nn.LeakyReLU(LRELU_SLOPE)]
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(channels[-1] * 16, 1)
        _initialize(self)

    def forward(
        self, image: Tensor, label: Tensor | None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Map float32 images [N, C, H, W] and labels [N, label_dim] to float32 logits [N, 1]."""
        x = image
        if label is not None:
            planes = label[:, :, None, None].expand(-1, -1, *image.shape[2:])
            x = torch.cat([image, planes], dim=1)
        with _autocast(dtype, image.device):
            x = self.layers(x.contiguous(memory_format=torch.channels_last))
            return self.out(x.flatten(1)).float()


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(NORM_GROUPS, channels), channels)


def _initialize(network: nn.Module) -> None:
    """Draw weights from N(0, 0.02) and norm scales from N(1, 0.02) (Radford et al. 2016)."""
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.normal_(module.weight, 1, INIT_STD)
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0, INIT_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _autocast(
    dtype: torch.dtype, device: torch.device
) -> contextlib.AbstractContextManager[object]:
    if dtype is torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)
