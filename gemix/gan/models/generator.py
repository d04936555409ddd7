"""The generator: mapping network, and skip synthesis network of StyleGAN2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gemix.gan.models import ops
from gemix.gan.models.architecture import Architecture
from gemix.gan.models.base import ImageGenerator
from gemix.gan.models.bias_act import modulate
from gemix.gan.models.layers import FullyConnectedLayer, SynthesisLayer, ToRGBLayer

MAPPING_LR_MULTIPLIER = 0.01
W_AVG_DECAY = 0.995


class MappingNetwork(nn.Module):
    """Map latents and labels to styles: an embedding of the label beside z, then an MLP.

    Args:
        z_dim: latent size; 0 for the label projection of the discriminator.
        label_dim: number of classes; 0 for unconditional networks.
        w_dim: size of the result and of the hidden layers.
    """

    def __init__(self, z_dim: int, label_dim: int, w_dim: int, layers: int):
        super().__init__()
        self.z_dim, self.label_dim, self.layers = z_dim, label_dim, layers
        if label_dim:
            self.embed = FullyConnectedLayer(label_dim, w_dim)
        width = z_dim + (w_dim if label_dim else 0)
        for index in range(layers):
            layer = FullyConnectedLayer(
                width, w_dim, activate=True, lr_multiplier=MAPPING_LR_MULTIPLIER
            )
            setattr(self, f"fc{index}", layer)
            width = w_dim
        if z_dim:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor | None, label: Tensor | None) -> Tensor:
        """Map z [N, z_dim] and soft labels [N, label_dim] to w [N, w_dim]."""
        parts = [ops.normalize_2nd_moment(z)] if self.z_dim else []
        if self.label_dim:
            parts.append(ops.normalize_2nd_moment(self.embed(label)))
        x = torch.cat(parts, dim=1)
        for index in range(self.layers):
            x = getattr(self, f"fc{index}")(x)
        return x

    @torch.no_grad()
    def update_w_avg(self, w_mean: Tensor, applies: Tensor) -> None:
        """Move the running mean of w, which truncation interpolates towards.

        Args:
            w_mean: mean of w over a batch, [w_dim].
            applies: whether it moves at all, bool scalar on the device.
        """
        self.w_avg.copy_(torch.where(applies, w_mean.lerp(self.w_avg, W_AVG_DECAY), self.w_avg))

    def truncate(self, w: Tensor, psi: float) -> Tensor:
        """Return w_avg + psi (w - w_avg) (Karras et al. 2019, section 2 of the appendix)."""
        return w if psi == 1 else self.w_avg.lerp(w, psi)


class SynthesisBlock(nn.Module):
    """One resolution: two styled convolutions (one at 4x4) and the image of this resolution."""

    def __init__(self, architecture: Architecture, resolution: int):
        super().__init__()
        self.resolution = resolution
        out_channels = architecture.channels(resolution)
        w_dim, clamp = architecture.w_dim, architecture.conv_clamp
        if resolution == 4:
            self.const = nn.Parameter(torch.randn(out_channels, 4, 4))
        else:
            in_channels = architecture.channels(resolution // 2)
            self.conv0 = SynthesisLayer(
                in_channels, out_channels, w_dim, resolution, up=True, clamp=clamp
            )
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, clamp=clamp)
        self.torgb = ToRGBLayer(out_channels, architecture.img_channels, w_dim, clamp)

    @property
    def convs(self) -> list[SynthesisLayer]:
        """The styled convolutions, in order."""
        return [self.conv1] if self.resolution == 4 else [self.conv0, self.conv1]


class SynthesisNetwork(nn.Module):
    """Map styles to an image, with a skip at every resolution (Karras et al. 2020, figure 7b)."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.resolutions = architecture.resolutions
        for resolution in self.resolutions:
            setattr(self, f"b{resolution}", SynthesisBlock(architecture, resolution))

    @property
    def blocks(self) -> list[SynthesisBlock]:
        """The blocks, smallest resolution first."""
        return [getattr(self, f"b{resolution}") for resolution in self.resolutions]

    @property
    def noise_shapes(self) -> list[tuple[int, int]]:
        """Shapes (H, W) of the noise of each styled convolution."""
        return [(c.resolution, c.resolution) for block in self.blocks for c in block.convs]

    def noise_const(self) -> list[Tensor]:
        """Return the fixed noise stored with the weights."""
        return [conv.noise_const for block in self.blocks for conv in block.convs]

    def forward(
        self, ws: Tensor, noise: list[Tensor] | None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Map ws [N, num_ws, w_dim] to float32 images [N, C, H, W], about -1 to 1.

        Args:
            noise: one tensor a styled convolution, [N, 1, H, W] or [H, W]; None adds none.
            dtype: of the convolutions.
        """
        ws = ws.float().unbind(dim=1)
        noise = [None] * len(self.noise_shapes) if noise is None else noise
        x = self.b4.const.to(dtype).expand(len(ws[0]), -1, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        image, layer = None, 0
        for block in self.blocks:
            styles = [conv.affine(ws[layer + i]) for i, conv in enumerate(block.convs)]
            x = modulate(x, styles[0])
            for conv, own, following in zip(block.convs, styles, [*styles[1:], None], strict=True):
                x = conv(x, own, noise[layer], following)
                layer += 1
            # the style of the image is also that of the next block's first convolution
            rgb = block.torgb(x, ws[layer])
            if image is None:
                image = rgb
            else:
                image = ops.upsample2d(image, block.conv0.resample_filter) + rgb
        return image


class Generator(ImageGenerator):
    """Map latents and soft labels to images."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = architecture
        a = architecture
        self.mapping = MappingNetwork(a.z_dim, a.label_dim, a.w_dim, a.mapping_layers)
        self.synthesis = SynthesisNetwork(a)

    @property
    def noise_shapes(self) -> list[tuple[int, int]]:
        """Shapes (H, W) of the synthesis network's noise."""
        return self.synthesis.noise_shapes

    def noise_const(self) -> list[Tensor]:
        """Return the fixed noise stored with the weights."""
        return self.synthesis.noise_const()

    def map(self, z: Tensor, label: Tensor | None, truncation_psi: float = 1.0) -> Tensor:
        """Map z [N, z_dim] and labels [N, label_dim] to ws [N, num_ws, w_dim]."""
        w = self.mapping.truncate(self.mapping(z, label), truncation_psi)
        return w.unsqueeze(1).expand(-1, self.architecture.num_ws, -1)

    def forward(
        self,
        z: Tensor,
        label: Tensor | None,
        noise: list[Tensor] | None = None,
        *,
        truncation_psi: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Map latents [N, z_dim] and labels to float32 images [N, C, H, W], about -1 to 1."""
        return self.synthesis(self.map(z, label, truncation_psi), noise, dtype)
