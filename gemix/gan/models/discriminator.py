"""The residual discriminator of StyleGAN2 with label projection."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gemix.gan.models.architecture import Architecture
from gemix.gan.models.generator import MappingNetwork
from gemix.gan.models.layers import Conv2dLayer, FullyConnectedLayer, MinibatchStdLayer

RESIDUAL_GAIN = math.sqrt(0.5)  # two branches of variance 1 add up to variance 1


class DiscriminatorBlock(nn.Module):
    """Two convolutions beside a 1x1 skip, which halve the image (Karras et al. 2020, figure 7c)."""

    def __init__(self, architecture: Architecture, resolution: int):
        super().__init__()
        in_channels = architecture.channels(resolution)
        out_channels = architecture.channels(resolution // 2)
        clamp = architecture.conv_clamp
        if resolution == architecture.resolution:
            self.fromrgb = Conv2dLayer(architecture.img_channels, in_channels, 1, clamp=clamp)
        else:
            self.fromrgb = None
        self.conv0 = Conv2dLayer(in_channels, in_channels, 3, clamp=clamp)
        self.conv1 = Conv2dLayer(in_channels, out_channels, 3, down=True, clamp=clamp)
        self.skip = Conv2dLayer(in_channels, out_channels, 1, activate=False, bias=False, down=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in, H, W] to [N, out, H/2, W/2]."""
        if self.fromrgb is not None:
            x = self.fromrgb(x)
        return self.conv1(self.conv0(x), RESIDUAL_GAIN, self.skip(x, RESIDUAL_GAIN))


class DiscriminatorOutput(NamedTuple):
    """Logits of n images.

    Attributes:
        logits: positive means real, float32 [n, 1].
        class_logits: of the auxiliary classifier, float32 [n, label_dim]; None without one.
    """

    logits: Tensor
    class_logits: Tensor | None


class DiscriminatorEpilogue(nn.Module):
    """Map 4x4 features to one logit, or to the vector that is projected on the label.

    The auxiliary classifier is one more layer on the same features (Odena et al., "Conditional
    image synthesis with auxiliary classifier GANs", 2017).
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        channels = architecture.channels(4)
        self.mbstd = MinibatchStdLayer(architecture.mbstd_group_size)
        self.conv = Conv2dLayer(channels + 1, channels, 3, clamp=architecture.conv_clamp)
        self.fc = FullyConnectedLayer(channels * 16, channels, activate=True)
        self.out = FullyConnectedLayer(channels, channels if architecture.label_dim else 1)
        if architecture.auxiliary_classifier and architecture.label_dim:
            self.classifier = FullyConnectedLayer(channels, architecture.label_dim)
        else:
            self.classifier = None

    def forward(self, x: Tensor, projection: Tensor | None, batches: int) -> DiscriminatorOutput:
        """Map [N, C, 4, 4] and the label's projection [N, C] to logits."""
        x = self.conv(self.mbstd(x, batches).float())
        x = self.fc(x.flatten(1))
        class_logits = None if self.classifier is None else self.classifier(x)
        x = self.out(x)
        if projection is not None:
            x = (x * projection).sum(dim=1, keepdim=True) / math.sqrt(projection.shape[1])
        return DiscriminatorOutput(x, class_logits)


class Discriminator(nn.Module):
    """Map images and soft labels to logits; positive means real.

    The label enters by projection (Miyato and Koyama, "cGANs with projection discriminator",
    2018): the logit is the scalar product of image features and of a mapping of the label.
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = architecture
        for resolution in architecture.resolutions[:0:-1]:
            setattr(self, f"b{resolution}", DiscriminatorBlock(architecture, resolution))
        self.b4 = DiscriminatorEpilogue(architecture)
        if architecture.label_dim:
            self.mapping = MappingNetwork(
                0, architecture.label_dim, architecture.channels(4), architecture.d_mapping_layers
            )
        else:
            self.mapping = None

    @property
    def blocks(self) -> list[DiscriminatorBlock]:
        """The residual blocks, the one next to the image first."""
        return [getattr(self, f"b{r}") for r in self.architecture.resolutions[:0:-1]]

    def nearest_to_image(self, layers: int) -> list[nn.Parameter]:
        """Return the parameters of the first layers, as many as given, from the image on.

        The order in a block is fromrgb (of the first block), conv0, conv1, skip.
        """
        ordered = [
            layer
            for block in self.blocks
            for layer in (block.fromrgb, block.conv0, block.conv1, block.skip)
            if layer is not None
        ]
        return [parameter for layer in ordered[:layers] for parameter in layer.parameters()]

    def forward(
        self,
        image: Tensor,
        label: Tensor | None,
        dtype: torch.dtype = torch.float32,
        batches: int = 1,
    ) -> Tensor:
        """Map float32 images [N, C, H, W] and labels [N, label_dim] to float32 logits [N, 1].

        Args:
            dtype: of the convolutions.
            batches: number of batches of one size in N; the minibatch standard deviation keeps
                them apart.
        """
        return self.outputs(image, label, dtype, batches).logits

    def outputs(
        self,
        image: Tensor,
        label: Tensor | None,
        dtype: torch.dtype = torch.float32,
        batches: int = 1,
    ) -> DiscriminatorOutput:
        """Return the logits of :meth:`forward` and those of the auxiliary classifier."""
        x = image.to(dtype, memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x)
        projection = self.mapping(None, label) if self.mapping is not None else None
        return self.b4(x, projection, batches)
