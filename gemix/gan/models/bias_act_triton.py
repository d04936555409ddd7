"""The kernels of :mod:`gemix.gan.models.bias_act` in Triton, for GPUs.

With u = x d + n t + b, the activation a(u), its slope m = a'(u), constant but for kinks, and the
result y = a s + r, where d are the demodulation, n the noise, t its strength, b the bias, s the
styles and r the residual, a derivative g by y gives

    by x: g s m d,  d: sum g s m x,  t: sum g s m n,  b: sum g s m,  s: sum g a

with sums over pixels, and over what a factor is shared by. A derivative X by the first of these and
D, T, B, S by the sums, with q = X d + D x + T n + B, gives

    by g: s m q + S a,  x: g m (s D + S d),
    d: sum g m (s X + S x),  t: sum g m S n,  b: sum g m S,  s: sum g m q

All is computed in float32. Sums are of fixed order, so that the same numbers give the same result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from gemix.gan.models.bias_act import Activation

# Elements that a program computes at once, and without sums, which need registers. Measured on an
# H200 among 512, 1024 and 2048 (docs/performance.md).
_TILE_WITH_SUMS, _TILE = 512, 2048
_MOST_CHANNELS = 64
_PROGRAMS = 4096  # at which a large GPU is busy

# Not specialized for what differs between layers, which takes a second each. For the channels it
# is: whether 16 divides them tells whether reads may be wide.
_UNSPECIALIZED = ["slope", "gain", "clamp", "pixels", "noise_stride", "tiles"]


def forward(
    activation: Activation,
    residual: Tensor | None,
    x: Tensor,
    demodulation: Tensor | None,
    noise: Tensor | None,
    noise_strength: Tensor | None,
    bias: Tensor | None,
    styles: Tensor | None,
) -> Tensor:
    """Return the result of :func:`gemix.gan.models.bias_act.bias_act`, channels last."""
    x = _channels_last(x)
    y = torch.empty_like(x)
    residual = None if residual is None else _channels_last(residual)
    factors = demodulation, noise, noise_strength, bias, styles
    _launch(_forward_kernel, activation, x, factors, [residual, y], with_sums=False)
    return y


def backward(
    activation: Activation, gradient: Tensor, x: Tensor, *factors: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the derivative by x, and the sums [4, N, C] for d, t, b and s: 0 for what is None."""
    x, gradient = _channels_last(x), _channels_last(gradient)
    of_x = torch.empty_like(x)
    sums = _launch(_backward_kernel, activation, x, factors, [gradient, of_x], with_sums=True)
    return of_x, sums


def double_backward(
    activation: Activation,
    of_x: Tensor,
    of_sums: Tensor,
    gradient: Tensor,
    x: Tensor,
    *factors: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the derivatives by g and by x, and the sums [4, N, C] for d, t, b and s.

    Without demodulation and styles the latter two are 0, and None is returned for them.
    """
    x, gradient, of_x = (_channels_last(tensor) for tensor in (x, gradient, of_x))
    demodulation, *_, styles = factors
    has_factors = demodulation is not None or styles is not None
    by_gradient, by_x = torch.empty_like(gradient), torch.empty_like(x) if has_factors else None
    tensors = [gradient, of_x, of_sums.contiguous(), by_gradient, by_x]
    sums = _launch(_double_backward_kernel, activation, x, factors, tensors, with_sums=has_factors)
    return by_gradient, by_x, sums


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _launch(
    kernel: Any,
    activation: Activation,
    x: Tensor,
    factors: Sequence[Tensor | None],
    tensors: Sequence[Tensor | None],
    *,
    with_sums: bool,
) -> Tensor | None:
    """Run a kernel over all of x; return its sums over pixels, [4, N, C].

    Args:
        factors: d, n, t, b and s.
        tensors: of the kernel alone.
        with_sums: whether it has any; without, None is returned.
    """
    n, channels, height, width = x.shape
    pixels = height * width
    block = min(_MOST_CHANNELS, triton.next_power_of_2(channels))
    rows = (_TILE_WITH_SUMS if with_sums else _TILE) // block
    blocks = triton.cdiv(channels, block)
    tiles_of_image = triton.cdiv(pixels, rows)
    # what is summed over many tiles is written, and summed, less often
    tiles = max(1, min(64, n * blocks * tiles_of_image // _PROGRAMS)) if with_sums else 1
    parts = triton.cdiv(tiles_of_image, tiles)
    partial = x.new_empty((4, parts, n, channels), dtype=torch.float32) if with_sums else None
    noise = factors[1]
    is_shared = noise is None or noise.ndim == 2 or noise.shape[0] == 1
    kernel[(parts, blocks, n)](
        x,
        *(None if factor is None else factor.contiguous() for factor in factors),
        *tensors,
        partial,
        *activation,
        pixels,
        0 if is_shared else pixels,
        tiles,
        channels,
        CLAMPED=math.isfinite(activation.clamp),
        ROWS=rows,
        CHANNELS=block,
    )
    return None if partial is None else partial.sum(dim=1)


@triton.jit
def _activated(u, slope, gain, clamp, CLAMPED: tl.constexpr):
    """Return the activation and its slope. NaN stays NaN."""
    m = tl.where(u > 0, 1.0, slope) * gain  # at 0 as PyTorch has it
    a = u * m
    if CLAMPED:
        m = tl.where(tl.abs(a) > clamp, 0.0, m)
        a = tl.where(a > clamp, clamp, tl.where(a < -clamp, -clamp, a))
    return a, m


@triton.jit
def _factors(demodulation, noise_strength, bias, styles, at, channel, inside):
    """Load d, t, b and s of one image's channels, [1, CHANNELS]: neutral where there is none."""
    d = tl.full(channel.shape, 1.0, tl.float32)
    s = tl.full(channel.shape, 1.0, tl.float32)
    b = tl.zeros(channel.shape, tl.float32)
    t = 0.0
    if demodulation is not None:
        d = tl.load(demodulation + at, mask=inside, other=0.0)
    if noise_strength is not None:
        t = tl.load(noise_strength)
    if bias is not None:
        b = tl.load(bias + channel, mask=inside, other=0.0)
    if styles is not None:
        s = tl.load(styles + at, mask=inside, other=0.0)
    return d[None, :], t, b[None, :], s[None, :]


@triton.jit
def _noise(noise, place, inside, ROWS: tl.constexpr):
    """Load the noise of pixels, [ROWS, 1]."""
    if noise is None:
        return tl.zeros([ROWS, 1], tl.float32)
    else:
        return tl.load(noise + place, mask=inside, other=0.0)[:, None]


@triton.jit
def _store_sum(partial, which, sums, part, image, channels, channel, inside):
    """Store one kind of sum of this program in the tensor of all, [4, parts, N, C]."""
    place = (which * tl.num_programs(0) + part) * tl.num_programs(2) + image
    tl.store(partial + place * channels + channel, tl.sum(sums, axis=0), mask=inside)


@triton.jit
def _store_sums(partial, by_d, by_t, by_b, by_s, part, image, channels, channel, inside):
    """Store the sums for d, t, b and s."""
    _store_sum(partial, 0, by_d, part, image, channels, channel, inside)
    _store_sum(partial, 1, by_t, part, image, channels, channel, inside)
    _store_sum(partial, 2, by_b, part, image, channels, channel, inside)
    _store_sum(partial, 3, by_s, part, image, channels, channel, inside)


@triton.jit(do_not_specialize=_UNSPECIALIZED)
def _forward_kernel(
    x,
    demodulation,
    noise,
    noise_strength,
    bias,
    styles,
    residual,
    y,
    partial,
    slope,
    gain,
    clamp,
    pixels,
    noise_stride,
    tiles,
    channels,
    CLAMPED: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Compute `tiles` times `ROWS` pixels of `CHANNELS` channels of one image."""
    image = tl.program_id(2)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    at = image * channels + channel
    d, t, b, s = _factors(demodulation, noise_strength, bias, styles, at, channel, is_channel)
    for tile in range(tiles):
        pixel = (tl.program_id(0) * tiles + tile) * ROWS + tl.arange(0, ROWS)
        is_pixel = pixel < pixels
        inside = is_pixel[:, None] & is_channel[None, :]
        place = (image.to(tl.int64) * pixels + pixel)[:, None] * channels + channel[None, :]
        n = _noise(noise, image * noise_stride + pixel, is_pixel, ROWS)
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        result = _activated(value * d + (n * t + b), slope, gain, clamp, CLAMPED)[0] * s
        if residual is not None:
            result += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
        tl.store(y + place, result.to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=_UNSPECIALIZED)
def _backward_kernel(
    x,
    demodulation,
    noise,
    noise_strength,
    bias,
    styles,
    gradient,
    of_x,
    partial,
    slope,
    gain,
    clamp,
    pixels,
    noise_stride,
    tiles,
    channels,
    CLAMPED: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Compute the derivatives of the pixels of :func:`_forward_kernel`."""
    part, image = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    at = image * channels + channel
    d, t, b, s = _factors(demodulation, noise_strength, bias, styles, at, channel, is_channel)
    by_d = tl.zeros([ROWS, CHANNELS], tl.float32)
    by_t = tl.zeros([ROWS, CHANNELS], tl.float32)
    by_b = tl.zeros([ROWS, CHANNELS], tl.float32)
    by_s = tl.zeros([ROWS, CHANNELS], tl.float32)
    for tile in range(tiles):
        pixel = (part * tiles + tile) * ROWS + tl.arange(0, ROWS)
        is_pixel = pixel < pixels
        inside = is_pixel[:, None] & is_channel[None, :]
        place = (image.to(tl.int64) * pixels + pixel)[:, None] * channels + channel[None, :]
        n = _noise(noise, image * noise_stride + pixel, is_pixel, ROWS)
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
        a, m = _activated(value * d + (n * t + b), slope, gain, clamp, CLAMPED)
        h = g * s * m
        tl.store(of_x + place, (h * d).to(of_x.dtype.element_ty), mask=inside)
        if demodulation is not None:
            by_d += h * value
        if noise is not None:
            by_t += h * n
        by_b += h
        if styles is not None:
            by_s += g * a
    _store_sums(partial, by_d, by_t, by_b, by_s, part, image, channels, channel, is_channel)


@triton.jit(do_not_specialize=_UNSPECIALIZED)
def _double_backward_kernel(
    x,
    demodulation,
    noise,
    noise_strength,
    bias,
    styles,
    gradient,
    of_x,
    of_sums,
    by_gradient,
    by_x,
    partial,
    slope,
    gain,
    clamp,
    pixels,
    noise_stride,
    tiles,
    channels,
    CLAMPED: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Compute the derivatives of :func:`_backward_kernel`."""
    part, image = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < channels
    at = image * channels + channel
    d, t, b, s = _factors(demodulation, noise_strength, bias, styles, at, channel, is_channel)
    kind = tl.num_programs(2) * channels  # elements of one kind of sum
    of_d = tl.load(of_sums + at, mask=is_channel, other=0.0)[None, :]
    of_t = tl.load(of_sums + kind + at, mask=is_channel, other=0.0)[None, :]
    of_b = tl.load(of_sums + 2 * kind + at, mask=is_channel, other=0.0)[None, :]
    of_s = tl.load(of_sums + 3 * kind + at, mask=is_channel, other=0.0)[None, :]
    by_d = tl.zeros([ROWS, CHANNELS], tl.float32)
    by_t = tl.zeros([ROWS, CHANNELS], tl.float32)
    by_b = tl.zeros([ROWS, CHANNELS], tl.float32)
    by_s = tl.zeros([ROWS, CHANNELS], tl.float32)
    for tile in range(tiles):
        pixel = (part * tiles + tile) * ROWS + tl.arange(0, ROWS)
        is_pixel = pixel < pixels
        inside = is_pixel[:, None] & is_channel[None, :]
        place = (image.to(tl.int64) * pixels + pixel)[:, None] * channels + channel[None, :]
        n = _noise(noise, image * noise_stride + pixel, is_pixel, ROWS)
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
        of = tl.load(of_x + place, mask=inside, other=0.0).to(tl.float32)
        a, m = _activated(value * d + (n * t + b), slope, gain, clamp, CLAMPED)
        gm = g * m
        q = of * d + of_b
        if noise is not None:
            q += of_t * n
        if demodulation is not None:
            q += of_d * value
            by_d += gm * s * of
        found = s * m * q
        if styles is not None:
            found += of_s * a
            by_t += gm * of_s * n
            by_b += gm * of_s
            by_s += gm * q
            if demodulation is not None:
                by_d += gm * of_s * value
        tl.store(by_gradient + place, found.to(by_gradient.dtype.element_ty), mask=inside)
        if by_x is not None:
            found = gm * (s * of_d + of_s * d)
            tl.store(by_x + place, found.to(by_x.dtype.element_ty), mask=inside)
    if partial is not None:
        _store_sums(partial, by_d, by_t, by_b, by_s, part, image, channels, channel, is_channel)
