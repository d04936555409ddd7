"""The FIR filter of :mod:`gemix.gan.models.fir` in Triton, for GPUs.

cuDNN has no fast depthwise convolution with 4x4 filters (docs/performance.md), and zero insertion
and padding would each be a pass of their own. A filter without resampling goes down the rows and
reads each of them once for all rows of the filter; what up- or downsamples reads a pixel's
neighbours from the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gemix.gan.models.fir import Correlation

_TILE = 2048  # elements that a program computes
_MOST_CHANNELS = 64
_BLUR_TILE = 2048  # elements of a row that a program computes at once
_BLUR_ROWS = 4  # of the largest filter, whose sums are kept in registers
_STRIP = 16  # rows of a program
_PROGRAMS = 2048  # at which a large GPU is busy


def correlate(x: Tensor, fir: Tensor, settings: Correlation) -> Tensor:
    """Correlate as :func:`gemix.gan.models.fir.correlate` does; all tensors on one GPU.

    Sums are float32; the result has the dtype of `x` and its memory format.
    """
    n, channels = x.shape[:2]
    channels_last = _is_channels_last(x)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = x.contiguous(memory_format=layout)
    out = torch.empty(
        (n, channels, *settings.size), dtype=x.dtype, device=x.device, memory_format=layout
    )
    if out.numel() == 0:
        return out
    has_resampling = settings.up > 1 or settings.down > 1
    if channels_last and not has_resampling and fir.shape[0] <= _BLUR_ROWS:
        _blur(x, fir.contiguous(), out, settings)
    else:
        _resample(x, fir.contiguous(), out, settings)
    return out


def _is_channels_last(x: Tensor) -> bool:
    return x.shape[1] > 1 and x.is_contiguous(memory_format=torch.channels_last)


def _blur(x: Tensor, fir: Tensor, out: Tensor, settings: Correlation) -> None:
    """Filter without resampling, channels last."""
    n, channels, height, width = out.shape
    block = min(_MOST_CHANNELS, triton.next_power_of_2(channels))
    pixels = _BLUR_TILE // block
    columns, blocks = triton.cdiv(width, pixels), triton.cdiv(channels, block)
    # a strip reads three rows more than it computes, unless a GPU has too little to do
    strip = _STRIP
    while strip > 4 and n * triton.cdiv(height, strip) * columns * blocks < _PROGRAMS:
        strip //= 2
    _blur_kernel[(n * triton.cdiv(height, strip), columns, blocks)](
        x,
        fir,
        out,
        channels,
        settings.gain,
        int(settings.flip),
        *x.shape[2:],
        height,
        width,
        *settings.offset,
        strip,
        ROWS=fir.shape[0],
        COLUMNS=fir.shape[1],
        PIXELS=pixels,
        CHANNELS=block,
    )


def _resample(x: Tensor, fir: Tensor, out: Tensor, settings: Correlation) -> None:
    """Filter with resampling, in either memory format."""
    n, channels, *size = out.shape
    # neighbouring threads take what is neighbouring in memory
    channels_last = _is_channels_last(x)
    block = min(_MOST_CHANNELS, triton.next_power_of_2(channels)) if channels_last else 1
    images, planes = (n, channels) if channels_last else (n * channels, 1)
    pixels = images * size[0] * size[1]
    grid = triton.cdiv(pixels, _TILE // block), triton.cdiv(planes, block)
    _correlate_kernel[grid](
        x,
        fir,
        out,
        planes,
        settings.gain,
        int(settings.flip),
        pixels,
        *x.shape[2:],
        *size,
        *settings.offset,
        UP=settings.up,
        DOWN=settings.down,
        ROWS=fir.shape[0],
        COLUMNS=fir.shape[1],
        PIXELS=_TILE // block,
        CHANNELS=block,
    )


# Not specialized for all the sizes that occur in a network, which takes a second each. For the
# channels it is: whether 16 divides them tells whether reads may be wide.
_UNSPECIALIZED = ["gain", "flip", "height", "width", "out_height", "out_width", "top", "left"]


@triton.jit
def _row_tap(fir, i: tl.constexpr, flip, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the sum of a row of the filter, 0 beyond its last one."""
    tap = 0.0
    if i < ROWS:
        for j in tl.static_range(COLUMNS):
            place = i * COLUMNS + j
            tap += tl.load(fir + place + flip * (ROWS * COLUMNS - 1 - 2 * place))
    return tap


@triton.jit
def _column_tap(fir, j: tl.constexpr, flip, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the sum of a column of the filter."""
    tap = 0.0
    for i in tl.static_range(ROWS):
        place = i * COLUMNS + j
        tap += tl.load(fir + place + flip * (ROWS * COLUMNS - 1 - 2 * place))
    return tap


@triton.jit
def _filtered_line(
    x,
    fir,
    image,
    y,
    column,
    place,
    left,
    flip,
    channels,
    is_channel,
    height,
    width,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Filter row `y` of an image along its columns; rows outside of the image are zero."""
    source = x + (image.to(tl.int64) * height + y) * width * channels
    reach = tl.where((y >= 0) & (y < height), width, 0)
    line = tl.zeros(place.shape, dtype=tl.float32)
    for j in tl.static_range(COLUMNS):
        z = column + (j - left)
        mask = ((z >= 0) & (z < reach))[:, None] & is_channel
        values = tl.load(source + (place + (j - left) * channels), mask=mask, other=0.0)
        line += values.to(tl.float32) * _column_tap(fir, j, flip, ROWS, COLUMNS)
    return line


@triton.jit(do_not_specialize=[*_UNSPECIALIZED, "strip"])
def _blur_kernel(
    x,
    fir,
    out,
    channels,
    gain,
    flip,
    height,
    width,
    out_height,
    out_width,
    top,
    left,
    strip,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Compute `strip` rows of `PIXELS` pixels of `CHANNELS` channels of one image.

    The filter is an outer product: a row of the image is filtered along its columns, and added to
    the sums of the four rows of the result that it takes part in.
    """
    strips = tl.cdiv(out_height, strip)
    image = tl.program_id(0) // strips
    first = (tl.program_id(0) % strips) * strip
    column = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = (channel < channels)[None, :]
    place = column[:, None] * channels + channel[None, :]
    tap0 = _row_tap(fir, 0, flip, ROWS, COLUMNS)
    tap1 = _row_tap(fir, 1, flip, ROWS, COLUMNS)
    tap2 = _row_tap(fir, 2, flip, ROWS, COLUMNS)
    tap3 = _row_tap(fir, 3, flip, ROWS, COLUMNS)
    scale = gain / (tap0 + tap1 + tap2 + tap3)
    # sums of the rows that lack the last one, two and three rows of the filter
    sum1 = tl.zeros([PIXELS, CHANNELS], dtype=tl.float32)
    sum2 = tl.zeros([PIXELS, CHANNELS], dtype=tl.float32)
    sum3 = tl.zeros([PIXELS, CHANNELS], dtype=tl.float32)
    # Two rows at once, both read before the results are written: reads wait for earlier writes, and
    # one row a time would leave memory idle.
    for pair in range((strip + 4) // 2):
        y = first + 2 * pair - top
        first_line = _filtered_line(
            x,
            fir,
            image,
            y,
            column,
            place,
            left,
            flip,
            channels,
            is_channel,
            height,
            width,
            ROWS,
            COLUMNS,
        )
        second_line = _filtered_line(
            x,
            fir,
            image,
            y + 1,
            column,
            place,
            left,
            flip,
            channels,
            is_channel,
            height,
            width,
            ROWS,
            COLUMNS,
        )
        begun = image.to(tl.int64) * out_height
        row = first + 2 * pair - 3
        reach = tl.where((pair >= 2) & (row < out_height), out_width, 0)
        mask = (column < reach)[:, None] & is_channel
        result = ((sum1 + first_line * tap3) * scale).to(out.dtype.element_ty)
        tl.store(out + (begun + row) * out_width * channels + place, result, mask=mask)
        row += 1
        reach = tl.where((pair >= 1) & (row < out_height) & (row < first + strip), out_width, 0)
        mask = (column < reach)[:, None] & is_channel
        result = (sum2 + first_line * tap2 + second_line * tap3) * scale
        result = result.to(out.dtype.element_ty)
        tl.store(out + (begun + row) * out_width * channels + place, result, mask=mask)
        sum1 = sum3 + first_line * tap1 + second_line * tap2
        sum2 = first_line * tap0 + second_line * tap1
        sum3 = second_line * tap0


@triton.jit(do_not_specialize=[*_UNSPECIALIZED, "pixels"])
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

    In memory channels change fastest, then columns, rows and images. Of the filter's taps only
    those are read that meet a pixel, and not a zero between pixels: one in `UP` rows and columns.
    """
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    column = pixel % out_width
    row = (pixel // out_width) % out_height
    image = pixel // (out_width * out_height)
    inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    # where the filter begins in the image with zeros inserted, and its first tap on a pixel
    y_begin, z_begin = row * DOWN - top, column * DOWN - left
    i_first = (UP - (y_begin % UP + UP) % UP) % UP
    j_first = (UP - (z_begin % UP + UP) % UP) % UP
    result = tl.zeros([PIXELS, CHANNELS], dtype=tl.float32)
    for a in tl.static_range((ROWS + UP - 1) // UP):
        i = i_first + a * UP
        y = (y_begin + i) // UP
        y_inside = (i < ROWS) & (y_begin + i >= 0) & (y < height)
        for b in tl.static_range((COLUMNS + UP - 1) // UP):
            j = j_first + b * UP
            z = (z_begin + j) // UP
            meets = y_inside & (j < COLUMNS) & (z_begin + j >= 0) & (z < width)
            place = i * COLUMNS + j
            tap = tl.load(
                fir + place + flip * (ROWS * COLUMNS - 1 - 2 * place), mask=meets, other=0.0
            )
            source = ((image * height + y).to(tl.int64) * width + z) * channels
            mask = inside & meets[:, None]
            values = tl.load(x + source[:, None] + channel[None, :], mask=mask, other=0.0)
            result += values.to(tl.float32) * tap[:, None]
    target = (pixel.to(tl.int64) * channels)[:, None] + channel[None, :]
    tl.store(out + target, (result * gain).to(out.dtype.element_ty), mask=inside)
