"""The interface of the generators of all methods, as sampling uses it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gemix.gan.models.architecture import Architecture


class ImageGenerator(nn.Module):
    """Map latents and soft labels to images.

    An image depends on its own latent, label and noise, never on the rest of the batch: nothing in
    a generator may reduce over the batch.
    """

    architecture: Architecture

    @property
    def noise_shapes(self) -> list[tuple[int, int]]:
        """Shapes (H, W) of the noise that a forward pass takes beside the latent; here none."""
        return []

    def noise_const(self) -> list[Tensor]:
        """Return the fixed noise stored with the weights, one tensor a shape; here none."""
        return []

    def forward(
        self,
        z: Tensor,
        label: Tensor | None,
        noise: list[Tensor] | None = None,
        *,
        truncation_psi: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return float32 images [N, C, H, W], about -1 to 1.

        Args:
            z: standard normal latents [N, z_dim].
            label: soft labels [N, label_dim]; None for unconditional networks.
            noise: one tensor a shape, [N, 1, H, W] or [H, W]; None adds none.
            truncation_psi: 1 leaves styles as they are, 0 makes them their mean.
            dtype: what the convolutions compute in.
        """
        raise NotImplementedError
