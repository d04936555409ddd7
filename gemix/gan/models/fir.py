"""Resampling of images with FIR filters, differentiable any number of times."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gemix.core.triton_kernels import load_kernels


class Correlation(NamedTuple):
    """Positions at which a filter meets an image.

    Attributes:
        gain: factor on the result.
        flip: whether the filter is flipped first, which makes it a convolution.
        offset: rows and columns, in upsampled pixels, by which the filter's first position starts
            before the image.
        up: rows and columns that each pixel becomes by zero insertion.
        down: rows and columns from one position of the filter to the next.
        size: height and width of the result.
    """

    gain: float
    flip: bool
    offset: tuple[int, int]
    up: int
    down: int
    size: tuple[int, int]

    def transposed(self, taps: Sequence[int], size: Sequence[int]) -> Correlation:
        """Return its derivative: by the flipped filter, with up- and downsampling exchanged.

        Args:
            taps: rows and columns of the filter.
            size: height and width of the image that it correlates.
        """
        rows, columns = (
            count - 1 - before for count, before in zip(taps, self.offset, strict=True)
        )
        up, down = self.down, self.up
        return Correlation(self.gain, not self.flip, (rows, columns), up, down, tuple(size))


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
        fir: float32 [h, w], an outer product as of :func:`fir_filter`; applied as a convolution, or
            with `flip_filter` as a correlation.
        padding: (left, right, top, bottom) in upsampled pixels; negative values crop.
        gain: factor on the result; up**2 keeps the brightness when upsampling.

    Returns:
        [N, C, (H * up + top + bottom - h) // down + 1, likewise for W].
    """
    left, right, top, bottom = padding
    size = tuple(
        (x.shape[2 + dim] * up + before + after - fir.shape[dim]) // down + 1
        for dim, (before, after) in enumerate(((top, bottom), (left, right)))
    )
    settings = Correlation(gain, not flip_filter, (top, left), up, down, size)
    # Both are needed: in a compiled graph torch.func.grad loses, without a word, derivatives of
    # derivatives through an autograd.Function; uncompiled sums take 3 to 7 times as long on a CPU.
    if torch.compiler.is_compiling():
        return _shifted_sums(x, fir, settings)
    return _Correlate.apply(x, fir, settings)


class _Correlate(torch.autograd.Function):
    """Correlate with a constant filter (:func:`correlate`).

    Its derivative is correlation with the flipped filter, up- and downsampling exchanged, which
    runs at the speed of the forward pass. PyTorch's own backward pass of depthwise convolutions is
    up to 20 times slower on CPUs.
    """

    @staticmethod
    def forward(x, fir, settings):
        return correlate(x, fir, settings)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, fir, ctx.settings = inputs
        ctx.save_for_backward(fir)
        ctx.size = x.shape[2:]

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (fir,) = ctx.saved_tensors
        settings = ctx.settings.transposed(fir.shape, ctx.size)
        return _Correlate.apply(gradient, fir, settings), None, None


def correlate(x: Tensor, fir: Tensor, settings: Correlation) -> Tensor:
    """Correlate each channel with a filter.

    Args:
        x: [N, C, H, W]; outside of it, and between its pixels when upsampling, are zeros.
        fir: float32 [h, w], an outer product.

    Returns:
        [N, C, *size], in the dtype of `x`.
    """
    implementation = _gpu_correlate(x.device) if x.is_cuda else _depthwise
    return implementation(x, fir, settings)


@functools.cache
def _gpu_correlate(device: torch.device) -> Callable[..., Tensor]:
    """Return the Triton kernel, or the depthwise convolution where it does not run."""
    image = torch.ones(1, 2, 1, 1, device=device)

    def run_once(kernels: ModuleType) -> None:
        for up in (1, 2):  # a kernel each
            kernels.correlate(image, image[0, 0], Correlation(1.0, False, (0, 0), up, 1, (1, 1)))

    kernels = load_kernels("gemix.gan.models.fir_triton", run_once, "images are filtered")
    return _depthwise if kernels is None else kernels.correlate


def _depthwise(x: Tensor, fir: Tensor, settings: Correlation) -> Tensor:
    """Correlate by a convolution in which each channel is a group."""
    gain, flip, offset, up, down, size = settings
    channels = x.shape[1]
    # spread to the pixels that the filter reaches, so that the padding below is the same all around
    reach = [(s - 1) * down + taps for s, taps in zip(size, fir.shape, strict=True)]
    if up > 1:
        n, _, height, width = x.shape
        sides = [
            max(least, length - 2 * before)
            for least, length, before in zip(
                ((height - 1) * up + 1, (width - 1) * up + 1), reach, offset, strict=True
            )
        ]
        spread = x.new_zeros((n, *sides, channels)).permute(0, 3, 1, 2)
        spread[:, :, : (height - 1) * up + 1 : up, : (width - 1) * up + 1 : up] = x
        x = spread
    after = [
        length - before - side
        for length, before, side in zip(reach, offset, x.shape[2:], strict=True)
    ]
    same = offset[0] if offset[0] == offset[1] == after[0] == after[1] >= 0 else None
    if same is None or same >= min(fir.shape):
        x, same = F.pad(x, (offset[1], after[1], offset[0], after[0])), 0
    weight = (fir * gain).to(x.dtype)
    weight = (weight.flip((0, 1)) if flip else weight).expand(channels, 1, *fir.shape)
    return F.conv2d(x, weight, stride=down, padding=same, groups=channels)


def _shifted_sums(x: Tensor, fir: Tensor, settings: Correlation) -> Tensor:
    """Correlate with a separable filter, as sums of shifted images.

    In this form the compiler fuses the filter, and its derivatives, with the operations around it.
    """
    gain, flip, offset, up, down, size = settings
    if up > 1:
        n, channels, height, width = x.shape
        x = F.pad(x.reshape(n, channels, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1))
        x = x.reshape(n, channels, height * up, width * up)
    after = [
        (s - 1) * down + taps - before - side
        for s, taps, before, side in zip(size, fir.shape, offset, x.shape[2:], strict=True)
    ]
    x = F.pad(x, (offset[1], after[1], offset[0], after[0]))
    fir = (fir * gain).to(x.dtype)
    fir = fir.flip((0, 1)) if flip else fir
    for dim, taps in ((2, fir.sum(dim=1)), (3, fir.sum(dim=0) / fir.sum())):
        last = x.shape[dim] - len(taps)  # where the filter's last position starts
        x = sum(_strided(x, dim, tap, tap + last + 1, down) * taps[tap] for tap in range(len(taps)))
    return x


def _strided(x: Tensor, dim: int, start: int, stop: int, step: int) -> Tensor:
    index = [slice(None)] * x.ndim
    index[dim] = slice(start, stop, step)
    return x[tuple(index)]
