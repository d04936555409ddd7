"""Layers with equalized learning rate, and the modulated convolution.

Weights are stored with unit variance and scaled when used (Karras et al., "Progressive growing of
GANs", 2018, section 4.1), so that Adam moves all of them at one rate. Parameter names are those of
the public StyleGAN2-ADA networks, so that their weights load as they are.

A leaky ReLU commutes with a positive factor, so in the generator the gains that follow activations
in the papers are multiplied into what precedes them: one pass less over every feature map. In
float32 the discriminator keeps the papers' order, because its minibatch standard deviation,
ill-conditioned where samples are nearly equal, would magnify the different rounding.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gemix.gan.models import ops
from gemix.gan.models.bias_act import Activation, bias_act, is_fused, modulate
from gemix.gan.models.conv import conv2d
from gemix.gan.models.fir import fir_filter


class FullyConnectedLayer(nn.Module):
    """y = x W^T + b, optionally with the leaky ReLU.

    Args:
        lr_multiplier: the layer's learning rate relative to Adam's.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activate: bool = False,
        bias_init: float = 0.0,
        lr_multiplier: float = 1.0,
    ):
        super().__init__()
        self.activate = activate
        self.lr_multiplier = lr_multiplier
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_features] to [N, out_features]."""
        gain = ops.LRELU_GAIN if self.activate else 1.0
        weight = self.weight * (self.weight_gain * gain)
        x = F.linear(x, weight, _scaled(self.bias, self.lr_multiplier * gain))
        return F.leaky_relu(x, ops.LRELU_SLOPE) if self.activate else x


class Conv2dLayer(nn.Module):
    """Convolution, optionally with bias and leaky ReLU, optionally halving the image.

    Args:
        clamp: bound on the result's absolute value before the `gain` of a call.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        activate: bool = True,
        bias: bool = True,
        down: bool = False,
        clamp: float | None = None,
    ):
        super().__init__()
        self.activate = activate
        self.down = down
        self.clamp = clamp
        self.padding = kernel_size // 2
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = _filters(*shape)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        if down:
            self.register_buffer("resample_filter", fir_filter(ops.BLUR_TAPS))

    def forward(self, x: Tensor, gain: float = 1.0, residual: Tensor | None = None) -> Tensor:
        """Map [N, in, H, W] to [N, out, H, W] (or half of it), times `gain` plus `residual`."""
        clamp = math.inf if self.clamp is None else self.clamp * gain
        if self.activate:
            gain = gain * ops.LRELU_GAIN
        fused = is_fused(x)
        before, after = (1.0, gain) if fused or x.dtype == torch.float32 else (gain, 1.0)
        weight = (self.weight * (self.weight_gain * before)).to(x.dtype)
        bias = None if self.bias is None else _scaled(self.bias, before)
        # convolutions on CPUs add a bias for nothing, those on GPUs in one more pass
        inner = None if fused or bias is None else bias.to(x.dtype)
        if self.down:
            x = ops.conv2d_down(x, weight, inner, self.resample_filter)
        elif weight.shape[-1] == 1:
            x = ops.conv1x1(x, weight, inner)
        else:
            x = conv2d(x, weight, inner, padding=self.padding)
        activation = Activation(ops.LRELU_SLOPE if self.activate else 1.0, after, clamp)
        return bias_act(x, activation, bias=bias if fused else None, residual=residual)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias and leaky ReLU, optionally doubling the image.

    Karras et al., "Analyzing and improving the image quality of StyleGAN", 2020, equations 1
    and 3: w'_ijk = s_i w_ijk, w''_ijk = w'_ijk / sqrt(sum_ik w'_ijk^2 + eps). Scaling the input
    by s and the output by the demodulation factor gives the same result as per-sample weights,
    and lets the whole batch share one dense convolution.

    Args:
        clamp: bound on the result's absolute value.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        *,
        up: bool = False,
        clamp: float | None = None,
    ):
        super().__init__()
        self.up = up
        self.resolution = resolution
        self.clamp = clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = _filters(out_channels, in_channels, 3, 3)
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        if up:
            self.register_buffer("resample_filter", fir_filter(ops.BLUR_TAPS))

    def forward(
        self, x: Tensor, styles: Tensor, noise: Tensor | None, next_styles: Tensor | None = None
    ) -> Tensor:
        """Map [N, in, H, W] to [N, out, H, W] (or twice that).

        Args:
            x: modulated by the styles.
            styles: of this layer (`affine`), [N, in].
            noise: [N, 1, H_out, W_out] or [H_out, W_out]; None adds none.
            next_styles: [N, out], which the result is modulated by.
        """
        energy = self.weight.square().sum(dim=(2, 3))  # [O, I]
        demodulation = torch.rsqrt(styles.square() @ energy.t() + 1e-8)  # [N, O]
        if self.up:
            x = ops.conv2d_up(x, self.weight, self.resample_filter)
        else:
            x = conv2d(x, self.weight.to(x.dtype), padding=1)
        clamp = math.inf if self.clamp is None else self.clamp
        return bias_act(
            x,
            Activation(ops.LRELU_SLOPE, ops.LRELU_GAIN, clamp),
            demodulation=demodulation,
            noise=noise,
            noise_strength=None if noise is None else self.noise_strength,
            bias=self.bias,
            styles=next_styles,
        )


class ToRGBLayer(nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation."""

    def __init__(self, in_channels: int, img_channels: int, w_dim: int, clamp: float | None = None):
        super().__init__()
        self.clamp = clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = _filters(img_channels, in_channels, 1, 1)
        self.bias = nn.Parameter(torch.zeros(img_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map [N, in, H, W] and w [N, w_dim] to a float32 image [N, img_channels, H, W]."""
        styles = self.affine(w) * self.weight_gain
        x = ops.conv1x1(modulate(x, styles), self.weight.to(x.dtype))
        x = x.float() + self.bias[:, None, None]
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class MinibatchStdLayer(nn.Module):
    """Append the standard deviation over groups of samples as one more channel.

    Karras et al. 2018, section 3. Group m of a batch of N holds the samples m, m + M, m + 2M, …
    with M = N / group size.
    """

    def __init__(self, group_size: int):
        super().__init__()
        self.group_size = group_size

    def forward(self, x: Tensor, batches: int = 1) -> Tensor:
        """Map [N, C, H, W] to [N, C + 1, H, W].

        Args:
            x: concatenated batches of one size, a multiple of the group size, or smaller.
            batches: their number; groups do not cross them.
        """
        n, _, height, width = x.shape
        group = min(self.group_size, n // batches)
        grouped = x.reshape(batches, group, -1, *x.shape[1:]).float()
        centred = grouped - grouped.mean(dim=1, keepdim=True)
        # not var(): the second derivative that R1 needs is more exact this way
        std = torch.sqrt(centred.square().mean(dim=1) + 1e-8)
        mean = std.mean(dim=(2, 3, 4)).repeat(1, group).flatten()  # [N]
        extra = mean.to(x.dtype)[:, None, None, None].expand(n, 1, height, width)
        return torch.cat([x, extra], dim=1)


def _filters(*shape: int) -> nn.Parameter:
    """Return random weights [O, I, h, w] in the memory format that convolutions read.

    In another one each phase would copy them.
    """
    return nn.Parameter(torch.randn(shape).contiguous(memory_format=torch.channels_last))


def _scaled(x: Tensor, factor: float) -> Tensor:
    """Return x times a factor; a factor of 1 would be one more kernel in each phase."""
    return x if factor == 1 else x * factor
