"""Resampling convolutions and the constants of StyleGAN2's activation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gemix.gan.models.conv import conv2d, conv_transpose2d
from gemix.gan.models.fir import upfirdn2d

LRELU_SLOPE = 0.2
LRELU_GAIN = math.sqrt(2)  # keeps the variance of a leaky ReLU's output near 1
BLUR_TAPS = (1.0, 3.0, 3.0, 1.0)


def upsample2d(x: Tensor, fir: Tensor) -> Tensor:
    """Double height and width of [N, C, H, W] with the filter [1, 3, 3, 1].

    With these taps that is bilinear interpolation, with zeros beyond the border; as such it runs
    twenty times faster on a CPU than as a convolution of one channel. On a GPU the filter takes one
    kernel, and its gradients are the same in every run, where those of interpolation are not.
    """
    if x.is_cuda and not torch.compiler.is_compiling():
        return upfirdn2d(x, fir, up=2, padding=(2, 1, 2, 1), gain=4)
    doubled = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2, mode="bilinear")
    return doubled[:, :, 2:-2, 2:-2]


def downsample2d(x: Tensor, fir: Tensor) -> Tensor:
    """Filter [N, C, H, W] and halve its height and width."""
    taps = fir.shape[0]
    before, after = (taps - 1) // 2, (taps - 2) // 2
    return upfirdn2d(x, fir, down=2, padding=(before, after, before, after))


def conv2d_up(x: Tensor, weight: Tensor, fir: Tensor) -> Tensor:
    """Apply a 3x3 transposed convolution of stride 2, then the blur: to [N, O, 2H, 2W].

    Upsampling inside the convolution costs a quarter of convolving an upsampled image. The weight
    [O, I, 3, 3] may be of another dtype than x.
    """
    weight = weight.transpose(0, 1).to(x.dtype, memory_format=torch.channels_last)
    x = conv_transpose2d(x, weight, stride=2)
    return upfirdn2d(x, fir, padding=(1, 1, 1, 1), gain=4)


def conv2d_down(x: Tensor, weight: Tensor, bias: Tensor | None, fir: Tensor) -> Tensor:
    """Apply the blur, then a convolution of stride 2: to [N, O, H/2, W/2]."""
    if weight.shape[-1] == 1:  # only every other pixel of the blur is needed
        return conv2d(downsample2d(x, fir), weight, bias)
    return conv2d(upfirdn2d(x, fir, padding=(2, 2, 2, 2)), weight, bias, stride=2)


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a 1x1 convolution as a matrix product over the pixels: to [N, O, H, W].

    Next to an image of one channel cuDNN has no fast kernel, least of all for second derivatives.
    """
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def normalize_2nd_moment(x: Tensor) -> Tensor:
    """Scale each row of [N, C] to a mean square of 1."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)
