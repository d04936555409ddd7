"""Affine maps of image batches, and the warp that applies them without aliasing."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

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
_MARGIN = 3  # source pixels beyond the border that the doubling filter reaches
_REACH = 5  # doubled pixels beyond the border that the halving filter reaches
# The filter is not symmetric: its centre of mass lies this many taps before its middle. Uncorrected
# it would shift mirrored and turned images by twice that.
_LEAD = (len(SYM6) - 1) / 2 - sum(i * tap for i, tap in enumerate(SYM6)) / sum(SYM6)


def translate(x: Tensor, y: Tensor) -> Tensor:
    """Shifts by (x, y), each [N]: [N, 3, 3]."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrices((one, zero, x), (zero, one, y))


def scale(x: Tensor, y: Tensor) -> Tensor:
    """Stretches by (x, y), each [N]: [N, 3, 3]."""
    zero = torch.zeros_like(x)
    return _matrices((x, zero, zero), (zero, y, zero))


def rotate(angle: Tensor) -> Tensor:
    """Turns by `angle` [N] in radians: [N, 3, 3]."""
    sin, cos, zero = angle.sin(), angle.cos(), torch.zeros_like(angle)
    return _matrices((cos, -sin, zero), (sin, cos, zero))


def _matrices(*rows: tuple[Tensor, ...]) -> Tensor:
    """Affine maps of their first two rows, of numbers [N] each: [N, 3, 3]."""
    zero = torch.zeros_like(rows[0][0])
    return torch.stack([torch.stack(row, 1) for row in (*rows, (zero, zero, zero + 1))], 1)


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
    double, halve = (m.to(images) for m in _resamplers(size, images.device))
    # the halving filter reaches `_REACH` doubled pixels beyond the image
    count = 2 * size + 2 * _REACH
    line = (torch.arange(count, device=images.device) - _REACH + 0.5 + _LEAD) / size - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    target = torch.stack([x, y, torch.ones_like(x)], dim=-1).double()
    source = _inverse(transform.double())
    grid = torch.einsum("nij,hwj->nhwi", source, target) - _LEAD / size
    doubled = double @ images @ double.t()
    sample = _gather_sample if torch.compiler.is_compiling() else _GridSample.apply
    return halve @ sample(doubled, grid.to(images.dtype)) @ halve.t()


def _inverse(transform: Tensor) -> Tensor:
    """Rows x and y of the inverse affine maps, [N, 3, 3] to [N, 2, 3].

    In closed form, as a solver on a GPU makes the host wait.
    """
    (a, b, x), (c, d, y) = (row.unbind(1) for row in transform[:, :2].unbind(1))
    rows = (d, -b, b * y - d * x), (-c, a, c * x - a * y)
    linear = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    return linear / (a * d - b * c)[:, None, None]


@torch.compiler.assume_constant_result  # graphs hold them, as the cache does for the eager mode
def _resamplers(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return _built_resamplers(size, device)


@functools.lru_cache(maxsize=4)
def _built_resamplers(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Matrices that double and halve one axis: [2 size, size], [size, 2 size + 2 `_REACH`].

    The filter is linear and separable; for one channel, products with these are much quicker than
    convolutions.
    """
    taps = torch.tensor(SYM6) / sum(SYM6)
    units = F.pad(torch.eye(size)[:, None], (_MARGIN, _MARGIN), mode="reflect")
    spread = F.pad(units[..., None], (0, 1)).flatten(2)
    # six taps before the centre of a doubled pixel, five after; what lies beyond the border goes
    spread = F.pad(spread, (6 - 2 * _MARGIN, 5 - 2 * _MARGIN))
    double = 2 * F.conv1d(spread, taps.flip(0)[None, None])[:, 0].t()
    halve = F.conv1d(torch.eye(2 * size + 2 * _REACH)[:, None], taps[None, None], stride=2)
    return double.contiguous().to(device), halve[:, 0].t().contiguous().to(device)


def _gather_sample(image: Tensor, grid: Tensor) -> Tensor:
    """What :class:`_GridSample` does, in operations that compile with all their derivatives."""
    height, width = image.shape[2:]
    x, y = (_mirrored(grid[..., i], size) for i, size in ((0, width), (1, height)))
    left, top = x.floor(), y.floor()
    right_share, bottom_share = x - left, y - top
    flat, total = image.flatten(2), 0
    for down, row_share in ((0, 1 - bottom_share), (1, bottom_share)):
        for right, column_share in ((0, 1 - right_share), (1, right_share)):
            # beyond the last pixel the share is 0
            row = (top.long() + down).clamp(max=height - 1)
            place = row * width + (left.long() + right).clamp(max=width - 1)
            place = place.flatten(1)[:, None].expand(-1, image.shape[1], -1)
            values = flat.gather(2, place).unflatten(2, grid.shape[1:3])
            total = total + values * (row_share * column_share)[:, None]
    return total


def _mirrored(coordinate: Tensor, size: int) -> Tensor:
    """Coordinates of -1 to 1 across the image as pixels of 0 to size - 1, mirrored at borders."""
    distance = (((coordinate + 1) * size) / 2).abs().fmod(2 * size)  # from the first border
    return (torch.minimum(distance, 2 * size - distance) - 0.5).clamp(0, size - 1)


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
