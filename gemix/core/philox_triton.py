"""Philox and Box-Muller as one Triton kernel: :func:`gemix.core.torch_rng.draw` on a GPU.

In PyTorch's operations a draw is some 135 small kernels, and Box-Muller in float64, which most
GPUs compute at 1/32 or 1/64 of the rate of float32. Here one kernel computes in float32, with
arguments reduced so that every normal number has a relative error of a few 2**-24. The uniform
numbers are the same bits, the normal ones the same up to that rounding.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 256  # pairs of normal numbers that a program computes


def draw(
    indices: Tensor, step: Tensor, stream: int, low: int, high: int, uniforms: int, normals: int
) -> tuple[Tensor, Tensor]:
    """Draw as :func:`gemix.core.torch_rng.reference_draw` does; all tensors on one GPU."""
    count, pairs = len(indices), -(-normals // 2)
    uniform = indices.new_empty((count, uniforms), dtype=torch.float64)
    normal = indices.new_empty((count, normals), dtype=torch.float32)
    width = max(uniforms, pairs)
    if count and width:
        grid = (count, triton.cdiv(width, _BLOCK))
        _draw_kernel[grid](
            indices,
            step,
            uniform,
            normal,
            stream,
            low,
            high,
            uniforms,
            normals,
            pairs,
            -(-(uniforms + 2 * pairs) // 4),
            BLOCK=_BLOCK,
        )
    return uniform, normal


@triton.jit
def _word(position, blocks, index, step, stream, low, high):
    """Return the words of a sample at positions, uint32 as int64.

    The words are ordered by their place in a counter's result: first the first words of all blocks,
    then the second ones, and so on.
    """
    mask = 0xFFFFFFFF
    place = position // blocks
    a = (position - place * blocks).to(tl.uint64)
    b = tl.zeros_like(a) + index
    c = tl.zeros_like(a) + step
    d = tl.zeros_like(a) + stream
    key_a = tl.zeros_like(a) + low
    key_b = tl.zeros_like(a) + high
    for _ in range(10):
        product_a = a * 0xD2511F53
        product_c = c * 0xCD9E8D57
        a = ((product_c >> 32) ^ b ^ key_a) & mask
        b = product_c & mask
        c = ((product_a >> 32) ^ d ^ key_b) & mask
        d = product_a & mask
        key_a = (key_a + 0x9E3779B9) & mask
        key_b = (key_b + 0xBB67AE85) & mask
    first = tl.where(place == 0, a, b)
    second = tl.where(place == 2, c, d)
    return tl.where(place < 2, first, second).to(tl.int64)


# not specialized: a kernel for each stream would be compiled, and 1 would be no tensor
@triton.jit(do_not_specialize=["stream", "low", "high", "uniforms", "normals", "pairs", "blocks"])
def _draw_kernel(
    indices,
    steps,
    uniform,
    normal,
    stream,
    low,
    high,
    uniforms,
    normals,
    pairs,
    blocks,
    BLOCK: tl.constexpr,
):
    """Draw `BLOCK` uniform numbers and pairs of normal ones of one sample."""
    sample = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK).to(tl.int64)
    index, step = tl.load(indices + sample), tl.load(steps)

    drawn = _word(column, blocks, index, step, stream, low, high).to(tl.float64)
    tl.store(
        uniform + sample * uniforms + column, drawn * 2.3283064365386963e-10, column < uniforms
    )

    first = _word(uniforms + column, blocks, index, step, stream, low, high)
    second = _word(uniforms + pairs + column, blocks, index, step, stream, low, high)
    # -log((first + 1) / 2**32), from the distance to 1 where that is the smaller number
    near_one = first >= 0x80000000
    share = tl.where(near_one, 0xFFFFFFFF - first, first + 1).to(tl.float32)
    share = share * 2.3283064365386963e-10
    # log(1 - x) = -2 atanh(x / (2 - x)), a series for x up to 1/2: |x / (2 - x)| <= 1/3
    ratio = share / (2 - share)
    square = ratio * ratio
    series = 1.0 / 15 + square * (1.0 / 17)
    series = 1.0 / 13 + square * series
    series = 1.0 / 11 + square * series
    series = 1.0 / 9 + square * series
    series = 1.0 / 7 + square * series
    series = 1.0 / 5 + square * series
    series = 1.0 / 3 + square * series
    negative_log = tl.where(near_one, 2 * ratio * (1 + square * series), -tl.log(share))
    radius = tl.sqrt(2 * negative_log)
    # the angle in quarter turns: the nearest whole number of them, and what is left
    quarter = ((second + 0x20000000) >> 30) & 3
    left = ((second + 0x20000000) & 0x3FFFFFFF) - 0x20000000
    angle = left.to(tl.float32) * 1.4629180792671596e-09  # pi / 2**31; at most pi / 4
    square = angle * angle
    sine = -1.0 / 5040 + square * (1.0 / 362880)
    sine = 1.0 / 120 + square * sine
    sine = -1.0 / 6 + square * sine
    sine = angle * (1 + square * sine)
    cosine = -1.0 / 720 + square * (1.0 / 40320)
    cosine = 1.0 / 24 + square * cosine
    cosine = -1.0 / 2 + square * cosine
    cosine = 1 + square * cosine
    swaps = (quarter & 1) == 1
    x = tl.where(swaps, sine, cosine)
    y = tl.where(swaps, cosine, sine)
    x = tl.where((quarter == 1) | (quarter == 2), -x, x)
    y = tl.where(quarter >= 2, -y, y)
    row = normal + sample * normals
    tl.store(row + column, radius * x, (column < pairs) & (column < normals))
    tl.store(row + pairs + column, radius * y, (column < pairs) & (pairs + column < normals))
