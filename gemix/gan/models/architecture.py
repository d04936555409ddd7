"""The sizes that determine the shapes of a method's networks."""

from __future__ import annotations

import dataclasses
import math


def is_side(pixels: int) -> bool:
    """Return whether the networks make images of this side: a power of two from 8 on."""
    return pixels >= 8 and not pixels & (pixels - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of a generator and discriminator pair.

    Attributes:
        resolution: side of the images, in pixels.
        label_dim: number of classes K; 0 for unconditional networks.
        mapping_layers, d_mapping_layers: of the mapping network, and of the discriminator's label
            projection.
        channel_base, channel_max: feature maps at a resolution are channel_base / resolution, at
            most channel_max.
        auxiliary_classifier: whether the discriminator also classifies images (Odena et al. 2017).
        conv_clamp: bound on the absolute output of every convolution layer, as public networks
            that were trained in half precision need it; None for no bound.
    """

    resolution: int
    img_channels: int
    label_dim: int
    z_dim: int = 512
    w_dim: int = 512
    mapping_layers: int = 8
    d_mapping_layers: int = 8
    channel_base: int = 16384
    channel_max: int = 512
    mbstd_group_size: int = 4
    auxiliary_classifier: bool = False
    conv_clamp: float | None = None

    def channels(self, resolution: int) -> int:
        """Return the number of feature maps at a resolution."""
        return min(self.channel_base // resolution, self.channel_max)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self.img_channels, self.resolution, self.resolution

    @property
    def resolutions(self) -> list[int]:
        """4, 8, ... up to the image's resolution."""
        return [2**i for i in range(2, int(math.log2(self.resolution)) + 1)]

    @property
    def num_ws(self) -> int:
        """Number of styles that the synthesis network takes."""
        return 2 * len(self.resolutions)
