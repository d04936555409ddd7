"""The FIR filter of :mod:`gemix.gan.models.fir` as one Triton kernel, for GPUs.

It reads each pixel once from memory and its neighbours from the cache. cuDNN has no fast depthwise
convolution with 4x4 filters (docs/performance.md), and zero insertion and padding would each be a
pass of their own.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 2048  # elements that a program computes
_MOST_CHANNELS = 64


def correlate(
    x: Tensor,
    fir: Tensor,
    gain: float,
    flip: bool,
    offset: tuple[int, int],
    up: int,
    down: int,
    size: tuple[int, int],
) -> Tensor:
    """Correlate as :func:`gemix.gan.models.fir.correlate` does; all tensors on one GPU.

    Sums are float32; the result has the dtype of `x` and its memory format.
    """
    n, channels, height, width = x.shape
    channels_last = channels > 1 and x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = x.contiguous(memory_format=layout)
    out = torch.empty((n, channels, *size), dtype=x.dtype, device=x.device, memory_format=layout)
    if out.numel() == 0:
        return out
    # neighbouring threads take what is neighbouring in memory
    block = min(_MOST_CHANNELS, triton.next_power_of_2(channels)) if channels_last else 1
    images, planes = (n, channels) if channels_last else (n * channels, 1)
    pixels = images * size[0] * size[1]
    grid = triton.cdiv(pixels, _TILE // block), triton.cdiv(planes, block)
    _correlate_kernel[grid](
        x,
        fir.contiguous(),
        out,
        planes,
        gain,
        int(flip),
        pixels,
        height,
        width,
        *size,
        *offset,
        UP=up,
        DOWN=down,
        ROWS=fir.shape[0],
        COLUMNS=fir.shape[1],
        PIXELS=_TILE // block,
        CHANNELS=block,
    )
    return out


# Not specialized for all the sizes that occur in a network, which takes a second each. For the
# channels it is: whether 16 divides them tells whether reads may be wide.
@triton.jit(
    do_not_specialize=[
        *("gain", "flip", "pixels", "height", "width", "out_height", "out_width", "top", "left")
    ]
)
def _correlate_kernel(
    x,
    fir,
    out,
    channels,
    gain,
    flip,
    pixels,
    height,
    width,
    out_height,
    out_width,
    top,
    left,
    UP: tl.constexpr,
    DOWN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Compute `PIXELS` pixels, counted over images, rows and columns, of `CHANNELS` channels.

    In memory channels change fastest, then columns, rows and images.
    """
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    column = pixel % out_width
    row = (pixel // out_width) % out_height
    image = pixel // (out_width * out_height)
    inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    result = tl.zeros([PIXELS, CHANNELS], dtype=tl.float32)
    for i in tl.static_range(ROWS):
        y = row * DOWN + i - top  # in the image with zeros inserted
        y_inside = (y >= 0) & (y < height * UP) & (y % UP == 0)
        for j in tl.static_range(COLUMNS):
            z = column * DOWN + j - left
            z_inside = (z >= 0) & (z < width * UP) & (z % UP == 0)
            place = i * COLUMNS + j
            tap = tl.load(fir + place + flip * (ROWS * COLUMNS - 1 - 2 * place))
            source = ((image * height + y // UP).to(tl.int64) * width + z // UP) * channels
            mask = inside & (y_inside & z_inside)[:, None]
            values = tl.load(x + source[:, None] + channel[None, :], mask=mask, other=0.0)
            result += values.to(tl.float32) * tap
    target = (pixel.to(tl.int64) * channels)[:, None] + channel[None, :]
    tl.store(out + target, (result * gain).to(out.dtype.element_ty), mask=inside)
