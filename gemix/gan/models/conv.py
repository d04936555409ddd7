"""Dense convolutions whose derivatives, of any order, are convolutions of the same kinds.

PyTorch differentiates the gradient by the weight, and what R1 and the path lengths differentiate
twice, as a convolution whose filter is as large as the image. cuDNN has no kernel on tensor cores
for that: five of them took a fifth of a step on an H200 (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0
) -> Tensor:
    """Convolve [N, I, H, W] with a weight [O, I, h, w] and add a bias [O]."""
    if torch.compiler.is_compiling():  # why: see gemix.gan.models.fir.upfirdn2d
        return F.conv2d(x, weight, bias, stride, padding)
    size = tuple(
        (side + 2 * padding - taps) // stride + 1
        for side, taps in zip(x.shape[2:], weight.shape[2:], strict=True)
    )
    return _Convolve.apply(x, weight, bias, stride, padding, False, size)


def conv_transpose2d(x: Tensor, weight: Tensor, *, stride: int = 1) -> Tensor:
    """Apply the transposed convolution of a weight [I, O, h, w] to [N, I, H, W], unpadded."""
    if torch.compiler.is_compiling():
        return F.conv_transpose2d(x, weight, stride=stride)
    size = tuple(
        (side - 1) * stride + taps for side, taps in zip(x.shape[2:], weight.shape[2:], strict=True)
    )
    return _Convolve.apply(x, weight, None, stride, 0, True, size)


class _Convolve(torch.autograd.Function):
    """A convolution, or transposed one, to images of a `size` (height, width)."""

    @staticmethod
    def forward(x, weight, bias, stride, padding, transposed, size):
        settings = _settings(x, weight, stride, padding, transposed, size)
        return torch.ops.aten.convolution(x, weight, bias, *settings)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, weight, _, *ctx.settings = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, weight = ctx.saved_tensors
        stride, padding, transposed, _ = ctx.settings
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            arguments = stride, padding, not transposed, tuple(x.shape[2:])
            of_x = _Convolve.apply(gradient, weight, None, *arguments)
        if ctx.needs_input_grad[1]:
            arguments = stride, padding, transposed, tuple(weight.shape[2:])
            of_weight = _WeightGradient.apply(gradient, x, *arguments)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(dim=(0, 2, 3))
        return of_x, of_weight, of_bias, None, None, None, None


class _WeightGradient(torch.autograd.Function):
    """The derivative of a convolution of x by its weight, whose filters have `taps` (h, w)."""

    @staticmethod
    def forward(gradient, x, stride, padding, transposed, taps):
        channels = (x.shape[1], gradient.shape[1])
        shape = channels if transposed else channels[::-1]
        # of its shape and memory format alone; its elements are not read
        weight = torch.empty(
            (*shape, *taps), dtype=x.dtype, device=x.device, memory_format=_memory_format(x)
        )
        settings = _settings(x, weight, stride, padding, transposed, gradient.shape[2:])
        wanted = (False, True, False)
        return torch.ops.aten.convolution_backward(gradient, x, weight, None, *settings, wanted)[1]

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        gradient, x, *ctx.settings = inputs
        ctx.save_for_backward(gradient, x)

    @staticmethod
    def backward(ctx, of_weight: Tensor):
        gradient, x = ctx.saved_tensors
        stride, padding, transposed, _ = ctx.settings
        of_gradient = of_x = None
        if ctx.needs_input_grad[0]:
            arguments = stride, padding, transposed, tuple(gradient.shape[2:])
            of_gradient = _Convolve.apply(x, of_weight, None, *arguments)
        if ctx.needs_input_grad[1]:
            arguments = stride, padding, not transposed, tuple(x.shape[2:])
            of_x = _Convolve.apply(gradient, of_weight, None, *arguments)
        return of_gradient, of_x, None, None, None, None


def _settings(
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    transposed: bool,
    size: Sequence[int],
) -> tuple:
    """Return the arguments of PyTorch's convolution that follow its tensors."""
    # rows and columns that a transposed convolution's smallest result lacks
    lacking = tuple(
        length - ((side - 1) * stride - 2 * padding + taps) if transposed else 0
        for length, side, taps in zip(size, x.shape[2:], weight.shape[2:], strict=True)
    )
    return (stride, stride), (padding, padding), (1, 1), transposed, lacking, 1


def _memory_format(x: Tensor) -> torch.memory_format:
    is_last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format
