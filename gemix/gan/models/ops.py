"""Resampling with FIR filters, and the activation of StyleGAN2."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LRELU_SLOPE = 0.2
LRELU_GAIN = math.sqrt(2)  # keeps the variance of a leaky ReLU's output near 1
BLUR_TAPS = (1.0, 3.0, 3.0, 1.0)


def fir_filter(taps: Sequence[float]) -> Tensor:
    """Return the separable 2-D filter of 1-D taps, normalized to sum 1: float32 [len, len]."""
    line = torch.tensor(taps, dtype=torch.float32)
    square = torch.outer(line, line)
    return square / square.sum()


def upfirdn2d(
    x: Tensor,
    fir: Tensor,
    *,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Upsample by zero insertion, pad, filter, and keep every `down`-th pixel.

    Args:
        x: [N, C, H, W].
        fir: [h, w], an outer product as of :func:`fir_filter`; applied as a convolution, or with
            `flip_filter` as a correlation.
        padding: (left, right, top, bottom) in upsampled pixels; negative values crop.
        gain: factor on the result; up**2 keeps the brightness when upsampling.

    Returns:
        [N, C, (H * up + top + bottom - h) // down + 1, likewise for W].
    """
    channels = x.shape[1]
    if up > 1:
        n, c, height, width = x.shape
        x = F.pad(x.reshape(n, c, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1))
        x = x.reshape(n, c, height * up, width * up)
    same = padding[0] if len(set(padding)) == 1 and 0 <= padding[0] < min(fir.shape) else 0
    if any(padding) and not same:
        x = F.pad(x, padding)
    fir = (fir * gain).to(x.dtype)
    if not flip_filter:
        fir = fir.flip((0, 1))
    # Both are needed: in a compiled graph torch.func.grad loses, without a word, derivatives of
    # derivatives through an autograd.Function; uncompiled sums take 3 to 7 times as long on a CPU.
    if torch.compiler.is_compiling():
        return _shifted_sums(x, fir, same, down)
    return _Correlate.apply(x, fir.expand(channels, 1, *fir.shape), same, down)


def _shifted_sums(x: Tensor, fir: Tensor, padding: int, stride: int) -> Tensor:
    """Correlate each channel with a separable filter, as sums of shifted images.

    In this form the compiler fuses the filter, and its derivatives, with the operations around it.
    """
    x = F.pad(x, (padding,) * 4)
    total = fir.sum()
    for dim, taps in ((2, fir.sum(dim=1)), (3, fir.sum(dim=0) / total)):
        last = x.shape[dim] - len(taps)  # where the filter's last position starts
        x = sum(
            _strided(x, dim, tap, tap + last + 1, stride) * taps[tap] for tap in range(len(taps))
        )
    return x


def _strided(x: Tensor, dim: int, start: int, stop: int, step: int) -> Tensor:
    index = [slice(None)] * x.ndim
    index[dim] = slice(start, stop, step)
    return x[tuple(index)]


class _Correlate(torch.autograd.Function):
    """Correlate each channel with a constant filter.

    Its derivative is correlation with the flipped filter, which runs at the speed of the forward
    pass. PyTorch's own backward pass of depthwise convolutions is up to 20 times slower on CPUs.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, padding: int, stride: int) -> Tensor:
        return F.conv2d(x, weight, stride=stride, padding=padding, groups=x.shape[1])

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, weight, ctx.padding, ctx.stride = inputs
        ctx.save_for_backward(weight)
        ctx.size = x.shape

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (weight,) = ctx.saved_tensors
        rows, columns = weight.shape[2] - 1, weight.shape[3] - 1
        if ctx.stride > 1:
            n, channels, height, width = ctx.size
            height, width = height + 2 * ctx.padding - rows, width + 2 * ctx.padding - columns
            spread = gradient.new_zeros((n, height, width, channels)).permute(0, 3, 1, 2)
            spread[:, :, :: ctx.stride, :: ctx.stride] = gradient
            gradient = spread
        if rows != columns:
            gradient = F.pad(gradient, (columns - rows, columns - rows, 0, 0))
        weight = weight.flip((2, 3))
        return _Correlate.apply(gradient, weight, rows - ctx.padding, 1), None, None, None


def upsample2d(x: Tensor) -> Tensor:
    """Double height and width of [N, C, H, W] with the filter [1, 3, 3, 1].

    With these taps that is bilinear interpolation, with zeros beyond the border; as such it runs
    twenty times faster on a CPU than as a convolution of one channel.
    """
    doubled = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2, mode="bilinear")
    return doubled[:, :, 2:-2, 2:-2]


def downsample2d(x: Tensor, fir: Tensor) -> Tensor:
    """Filter [N, C, H, W] and halve its height and width."""
    taps = fir.shape[0]
    before, after = (taps - 1) // 2, (taps - 2) // 2
    return upfirdn2d(x, fir, down=2, padding=(before, after, before, after))


def conv2d_up(x: Tensor, weight: Tensor, fir: Tensor) -> Tensor:
    """Apply a 3x3 transposed convolution of stride 2, then the blur: to [N, O, 2H, 2W].

    Upsampling inside the convolution costs a quarter of convolving an upsampled image.
    """
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    return upfirdn2d(x, fir, padding=(1, 1, 1, 1), gain=4)


def conv2d_down(x: Tensor, weight: Tensor, bias: Tensor | None, fir: Tensor) -> Tensor:
    """Apply the blur, then a convolution of stride 2: to [N, O, H/2, W/2]."""
    if weight.shape[-1] == 1:  # only every other pixel of the blur is needed
        return F.conv2d(downsample2d(x, fir), weight, bias)
    return F.conv2d(upfirdn2d(x, fir, padding=(2, 2, 2, 2)), weight, bias, stride=2)


def normalize_2nd_moment(x: Tensor) -> Tensor:
    """Scale each row of [N, C] to a mean square of 1."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)
