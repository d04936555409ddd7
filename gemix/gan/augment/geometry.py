"""Affine transformations of image batches, resampled without aliasing."""

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
_MARGIN = 3  # pixels beyond the border that the upsampling filter reaches
_REACH = 5  # upsampled pixels beyond the border that the downsampling filter reaches


def translate(x: Tensor, y: Tensor) -> Tensor:
    """Return translations by (x, y), each [N]: [N, 3, 3]."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrices((one, zero, x), (zero, one, y))


def scale(x: Tensor, y: Tensor) -> Tensor:
    """Return scalings by (x, y), each [N]: [N, 3, 3]."""
    zero = torch.zeros_like(x)
    return _matrices((x, zero, zero), (zero, y, zero))


def rotate(angle: Tensor) -> Tensor:
    """Return rotations by `angle` [N] in radians: [N, 3, 3]."""
    sin, cos, zero = angle.sin(), angle.cos(), torch.zeros_like(angle)
    return _matrices((cos, -sin, zero), (sin, cos, zero))


def _matrices(*rows: tuple[Tensor, ...]) -> Tensor:
    """Return affine matrices [N, 3, 3] of their first two rows, whose elements are [N]."""
    zero = torch.zeros_like(rows[0][0])
    return torch.stack([torch.stack(row, 1) for row in (*rows, (zero, zero, zero + 1))], 1)


def warp(images: Tensor, transform: Tensor) -> Tensor:
    """Transform each image by its affine matrix; beyond the border the image is mirrored.

    As in appendix B.2: upsample by 2 with the wavelet filter, sample bilinearly, downsample with
    the filter, so that neither enlarging nor shrinking aliases. Between upsampled pixels, bilinear
    sampling attenuates high frequencies (20 cycles in 64 pixels by up to 14%).

    Two deviations from the public StyleGAN2-ADA: flips and quarter turns copy pixels, since the
    filter is not symmetric and would shift mirrored images by 0.1 pixels; and the image is mirrored
    about the centres of its border pixels without end, where the public one fills what lies more
    than an image's width beyond the border with 0, a grey that no CT has there.

    Args:
        images: [N, C, H, W] with H = W.
        transform: [N, 3, 3], source to target, coordinates from -1 to 1 across the image.

    Returns:
        [N, C, H, W]; differentiable twice in the images, not in the transform.
    """
    size = images.shape[-1]
    images, transform = _blit(images, transform.double())
    upsample, downsample = (matrix.to(images) for matrix in _resamplers(size, images.device))
    # upsampled pixel 2 i lies at the centre of pixel i
    count = downsample.shape[1]
    line = (torch.arange(count, device=images.device) - _REACH + 1) / size - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    target = torch.stack([x, y, torch.ones_like(x)], dim=-1).double()
    source = torch.einsum("nij,hwj->nhwi", _inverse(transform), target)
    grid = source * (size / (size - 1))  # -1 and 1 are the centres of the border pixels
    upsampled = upsample @ images @ upsample.t()
    # Both are needed: in a compiled graph torch.func.grad loses derivatives of derivatives through
    # an autograd.Function; gathering takes longer where nothing fuses it.
    sample = _gather_sample if torch.compiler.is_compiling() else _GridSample.apply
    return downsample @ sample(upsampled, grid.to(images.dtype)) @ downsample.t()


def _blit(images: Tensor, transform: Tensor) -> tuple[Tensor, Tensor]:
    """Flip and transpose each image as comes closest to its transform.

    Returns:
        The images, and the transforms that are left, [N, 3, 3]: no flips, at most 45 degrees.
    """
    (a, b), (c, d) = (row.unbind(1) for row in transform[:, :2, :2].unbind(1))
    transposed = b.abs() + c.abs() > a.abs() + d.abs()
    flip_x, flip_y = (torch.where(transposed, b, a) < 0, torch.where(transposed, c, d) < 0)

    def where(chosen: Tensor, changed: Tensor) -> Tensor:
        return torch.where(chosen[:, None, None, None], changed, images)

    images = where(transposed, images.mT)
    images = where(flip_x, images.flip(3))
    images = where(flip_y, images.flip(2))
    x_column, y_column, shift = transform.unbind(2)
    swapped = torch.stack([y_column, x_column, shift], dim=2)
    straight = torch.where(transposed[:, None, None], swapped, transform)
    sign_x, sign_y = (1 - 2 * flip.to(transform) for flip in (flip_x, flip_y))
    return images, straight @ scale(sign_x, sign_y)


def _inverse(transform: Tensor) -> Tensor:
    """Return rows x and y of the inverse affine matrices, [N, 3, 3] to [N, 2, 3].

    In closed form, as solvers synchronize the GPU with the host.
    """
    (a, b, x), (c, d, y) = (row.unbind(1) for row in transform[:, :2].unbind(1))
    rows = (d, -b, b * y - d * x), (-c, a, c * x - a * y)
    linear = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    return linear / (a * d - b * c)[:, None, None]


def _resamplers(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return _cached_resamplers(size, device)


# torch.compiler.assume_constant_result, which imports torch._dynamo for a second to set this
_resamplers._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.lru_cache(maxsize=4)
def _cached_resamplers(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return matrices that upsample and downsample one axis by 2.

    The filter is linear and separable; for one channel, products with these are much faster than
    convolutions.

    Returns:
        [2 size - 1, size], and [size, 2 size + 2 `_REACH`].
    """
    taps = torch.tensor(SYM6) / sum(SYM6)
    units = F.pad(torch.eye(size)[:, None], (_MARGIN, _MARGIN), mode="reflect")
    spread = F.pad(units[..., None], (0, 1)).flatten(2)
    # six taps before the centre of an upsampled pixel, five after, none beyond the last pixel
    spread = F.pad(spread, (6 - 2 * _MARGIN, 4 - 2 * _MARGIN))
    spread, unit = spread[:, 0], torch.eye(2 * size + 2 * _REACH)
    # no convolutions: what is computed once must not count among the operations of a step
    upsample = 2 * (spread.unfold(1, len(taps), 1) * taps.flip(0)).sum(dim=2).t()
    downsample = (unit.unfold(1, len(taps), 2) * taps).sum(dim=2).t()
    return upsample.contiguous().to(device), downsample.contiguous().to(device)


def _gather_sample(image: Tensor, grid: Tensor) -> Tensor:
    """Sample as :class:`_GridSample` does, in operations whose derivatives all compile."""
    height, width = image.shape[2:]
    x, y = (_mirrored(grid[..., i], size) for i, size in ((0, width), (1, height)))
    left, top = x.floor(), y.floor()
    right_share, bottom_share = x - left, y - top
    flat, total = image.flatten(2), 0
    for down, row_share in ((0, 1 - bottom_share), (1, bottom_share)):
        for right, column_share in ((0, 1 - right_share), (1, right_share)):
            # beyond the last pixel the share is 0
            row = (top.long() + down).clamp(max=height - 1)
            index = row * width + (left.long() + right).clamp(max=width - 1)
            index = index.flatten(1)[:, None].expand(-1, image.shape[1], -1)
            values = flat.gather(2, index).unflatten(2, grid.shape[1:3])
            total = total + values * (row_share * column_share)[:, None]
    return total


def _mirrored(coordinate: Tensor, size: int) -> Tensor:
    """Return pixels from 0 to size - 1 of coordinates from -1 to 1, mirrored at border pixels."""
    last = size - 1
    distance = ((coordinate + 1) / 2 * last).abs().fmod(2 * last)  # from the first pixel
    return torch.minimum(distance, 2 * last - distance).clamp(0, last)


class _GridSample(torch.autograd.Function):
    """Sample bilinearly, mirrored at border pixels; twice differentiable in the image.

    The backward pass of PyTorch's grid_sample has a derivative from version 2.12 on, and 2.11 is
    supported. Sampling is linear in the image, so the derivative of its backward pass is sampling
    itself.
    """

    @staticmethod
    def forward(image: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(
            image, grid, mode="bilinear", padding_mode="reflection", align_corners=True
        )

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        image, grid = inputs
        ctx.save_for_backward(grid)
        ctx.size = image.shape

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (grid,) = ctx.saved_tensors
        return _GridSampleBackward.apply(gradient, grid, ctx.size), None


class _GridSampleBackward(torch.autograd.Function):
    """Map gradients of samples to gradients of the image, the transpose of :class:`_GridSample`."""

    @staticmethod
    def forward(gradient: Tensor, grid: Tensor, size: torch.Size) -> Tensor:
        bilinear, reflection = 0, 2
        image_gradient, _ = torch.ops.aten.grid_sampler_2d_backward(
            gradient.contiguous(),
            gradient.new_zeros(size),
            grid,
            bilinear,
            reflection,
            True,  # align_corners
            (True, False),
        )
        return image_gradient

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, grid, _ = inputs
        ctx.save_for_backward(grid)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (grid,) = ctx.saved_tensors
        return _GridSample.apply(gradient, grid), None, None
