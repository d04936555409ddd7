"""Random numbers as a function of (seed, stream, index, step), drawn on any device.

The counterpart of :mod:`gemix.core.rng` for whole batches: a training on a GPU waits neither for
the host nor for a copy. Philox 4x32 with ten rounds (Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3", SC 2011), keyed by the seed, with (block, index, step, stream) as its counter: a
CPU and a GPU draw the same bits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from gemix.core.rng import Stream
from gemix.core.triton_kernels import load_kernels

_ROUNDS = 10
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_WORD = 0xFFFFFFFF


def draw(
    seed: int, stream: Stream, indices: Tensor, step: Tensor, *, uniforms: int = 0, normals: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw uniform and standard normal numbers for each sample, on the device of `indices`.

    Normal numbers are Box and Muller's. On a CPU they are computed in float64 and rounded to
    float32, so that the rounding of different vector units vanishes; a GPU computes them in float32
    (:mod:`gemix.core.philox_triton`), the same up to a relative error of a few 2**-24.

    Args:
        seed: from 0 to 2**64 - 1.
        indices: of the n samples, int64 [n], each from 0 to 2**32 - 1.
        step: int64 [1], from 0 to 2**32 - 1.

    Returns:
        float64 [n, uniforms] in [0, 1), of 32 bits each, and float32 [n, normals].
    """
    return _draw(indices, step, int(stream), seed & _WORD, seed >> 32, uniforms, normals)


# One operation for the compiler: traced, its hundred small steps would take longer to compile than
# the networks, and be fused, and so repeated, into every channel that noise is added to.
@torch.library.custom_op("gemix::philox_draw", mutates_args=())
def _draw(
    indices: Tensor, step: Tensor, stream: int, low: int, high: int, uniforms: int, normals: int
) -> tuple[Tensor, Tensor]:
    return reference_draw(indices, step, stream, low, high, uniforms, normals)


@_draw.register_kernel("cuda")
def _(indices, step, stream, low, high, uniforms, normals):
    return _gpu_draw(indices.device)(indices, step, stream, low, high, uniforms, normals)


@functools.cache
def _gpu_draw(device: torch.device) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the Triton kernel, or the reference where it does not run."""
    counter = torch.zeros(1, dtype=torch.int64, device=device)
    kernels = load_kernels(
        "gemix.core.philox_triton",
        lambda kernels: kernels.draw(counter, counter, 0, 0, 0, 1, 2),
        "random numbers are drawn",
    )
    return reference_draw if kernels is None else kernels.draw


def reference_draw(
    indices: Tensor, step: Tensor, stream: int, low: int, high: int, uniforms: int, normals: int
) -> tuple[Tensor, Tensor]:
    """Draw as :func:`draw` does, in PyTorch's operations.

    Args:
        low, high: the halves of the seed.
    """
    pairs = -(-normals // 2)
    blocks = -(-(uniforms + 2 * pairs) // 4)
    block = torch.arange(blocks, device=indices.device).expand(len(indices), -1)
    counter = (
        block,
        indices[:, None].expand_as(block),
        step.expand_as(block),
        torch.full_like(block, stream),
    )
    words = torch.cat(philox4x32(counter, (low, high)), dim=1).double()
    uniform, first, second, _ = words.split(
        [uniforms, pairs, pairs, 4 * blocks - uniforms - 2 * pairs], dim=1
    )
    radius = ((first + 1) * 2.0**-32).log_().mul_(-2).sqrt_()
    angle = second * (2 * math.pi * 2.0**-32)
    normal = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return uniform * 2.0**-32, normal[:, :normals].float()


@_draw.register_fake
def _(indices, step, stream, low, high, uniforms, normals):
    count = len(indices)
    return (
        indices.new_empty((count, uniforms), dtype=torch.float64),
        indices.new_empty((count, normals), dtype=torch.float32),
    )


def philox4x32(counter: tuple[Tensor, ...], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Return four random words for each counter.

    Args:
        counter: four words, int64 tensors of one shape with values from 0 to 2**32 - 1.
        key: two words.

    Returns:
        Four words of that shape.
    """
    a, b, c, d = counter
    for turn in range(_ROUNDS):
        high_a, low_a = _product(a, _MULTIPLIERS[0])
        high_c, low_c = _product(c, _MULTIPLIERS[1])
        keys = [(word + turn * step) & _WORD for word, step in zip(key, _KEY_STEPS, strict=True)]
        a, b, c, d = high_c ^ b ^ keys[0], low_c, high_a ^ d ^ keys[1], low_a
    return a, b, c, d


def _product(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Return the high and low word of a product of two words; int64 wraps."""
    product = word * factor
    return (product >> 32) & _WORD, product & _WORD
