"""Affine maps of image batches, and the warp that applies them without aliasing."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gemix.gan.ops import fir_filter, upfirdn2d

# The orthogonal wavelet sym6 (Daubechies, "Ten lectures on wavelets", 1992), as Karras et al. 2020
# use it (appendix B.2): a sharp low-pass for resampling by 2.
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
_MARGIN = 3  # source pixels beyond the border that the filter reaches
# The filter is not symmetric: its centre of mass lies this many taps before its middle. Uncorrected
# it would shift mirrored and turned images by twice that.
_LEAD = (len(SYM6) - 1) / 2 - sum(i * tap for i, tap in enumerate(SYM6)) / sum(SYM6)


def identity(count: int) -> np.ndarray:
    """[count, 3, 3]."""
    return np.tile(np.eye(3), (count, 1, 1))


def translate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Shifts by (x, y), each [N]: [N, 3, 3]."""
    matrix = identity(len(x))
    matrix[:, 0, 2], matrix[:, 1, 2] = x, y
    return matrix


def scale(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Stretches by (x, y), each [N]: [N, 3, 3]."""
    matrix = identity(len(x))
    matrix[:, 0, 0], matrix[:, 1, 1] = x, y
    return matrix


def rotate(angle: np.ndarray) -> np.ndarray:
    """Turns by `angle` [N] in radians: [N, 3, 3]."""
    matrix = identity(len(angle))
    matrix[:, 0, 0] = matrix[:, 1, 1] = np.cos(angle)
    matrix[:, 1, 0] = np.sin(angle)
    matrix[:, 0, 1] = -matrix[:, 1, 0]
    return matrix


def warp(images: Tensor, transform: Tensor) -> Tensor:
    """Moves each image by its affine map; beyond the border the image is mirrored.

    The image is doubled with the wavelet filter, sampled bilinearly, and halved again with it, so
    that neither enlarging nor shrinking aliases.

    Args:
        images: [N, C, H, W] with H = W.
        transform: [N, 3, 3], source to target, coordinates from -1 to 1 across the image.

    Returns:
        [N, C, H, W]; differentiable twice in the images, not in the transform.
    """
    size = images.shape[-1]
    fir = fir_filter(SYM6).to(images.device)
    # twelve taps: 6 before and 5 after centre the doubled image; what lies beyond its border goes
    before, after = 6 - 2 * _MARGIN, 5 - 2 * _MARGIN
    doubled = upfirdn2d(
        F.pad(images, (_MARGIN,) * 4, mode="reflect"),
        fir,
        up=2,
        padding=(before, after, before, after),
        gain=4,
    )
    # the halving filter reaches 5 doubled pixels beyond the image
    line = (torch.arange(-5, 2 * size + 5, device=images.device) + 0.5 + _LEAD) / size - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    target = torch.stack([x, y, torch.ones_like(x)], dim=-1).double()
    source = torch.linalg.inv(transform.double())[:, :2]
    grid = torch.einsum("nij,hwj->nhwi", source, target) - _LEAD / size
    return upfirdn2d(
        _GridSample.apply(doubled, grid.to(images.dtype)), fir, down=2, flip_filter=True
    )


class _GridSample(torch.autograd.Function):
    """Bilinear sampling with mirrored borders that can be differentiated twice in the image.

    PyTorch's own backward pass of grid_sample has no derivative. Sampling is linear in the image,
    so the derivative of its backward pass is sampling itself.
    """

    @staticmethod
    def forward(ctx, image: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.size = image.shape
        return F.grid_sample(
            image, grid, mode="bilinear", padding_mode="reflection", align_corners=False
        )

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (grid,) = ctx.saved_tensors
        return _GridSampleBackward.apply(gradient, grid, ctx.size), None


class _GridSampleBackward(torch.autograd.Function):
    """The transpose of :class:`_GridSample`: gradient of the samples to gradient of the image."""

    @staticmethod
    def forward(ctx, gradient: Tensor, grid: Tensor, size: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        bilinear, reflection = 0, 2
        image_gradient, _ = torch.ops.aten.grid_sampler_2d_backward(
            gradient.contiguous(),
            gradient.new_zeros(size),
            grid,
            bilinear,
            reflection,
            False,
            (True, False),
        )
        return image_gradient

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (grid,) = ctx.saved_tensors
        return _GridSample.apply(gradient, grid), None, None
