"""The FIR filter against its definition, its derivatives, and its kernel for GPUs."""

from __future__ import annotations

import pytest
import torch

from gemix.gan.models.fir import fir_filter, upfirdn2d
from tests.triton_interpreter import run_interpreted

RESAMPLING = [(1, 1), (2, 1), (1, 2), (2, 2), (3, 2)]
PADDINGS = [(0, 0, 0, 0), (1, 1, 1, 1), (2, 1, 2, 1), (3, 0, 1, 2), (-1, 2, 0, -2)]


def by_definition(x, fir, up, down, padding, flip, gain):
    """Insert zeros, pad or crop, convolve and keep every `down`-th pixel, one pixel at a time."""
    left, right, top, bottom = padding
    n, c, height, width = x.shape
    wide = x.new_zeros((n, c, height * up + 40, width * up + 40))
    wide[:, :, 20 : 20 + height * up : up, 20 : 20 + width * up : up] = x
    wide = wide[:, :, 20 - top : 20 + height * up + bottom, 20 - left : 20 + width * up + right]
    fir = fir if flip else fir.flip((0, 1))
    windows = wide.unfold(2, fir.shape[0], down).unfold(3, fir.shape[1], down)
    return (windows * fir).sum(dim=(4, 5)) * gain


@pytest.mark.parametrize(("up", "down"), RESAMPLING)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("flip", [False, True])
def test_it_is_what_it_says(up, down, padding, flip):
    x = torch.randn(2, 3, 7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fir = fir_filter([1.0, 2.0, 4.0, 1.0])
    ours = upfirdn2d(x, fir, up=up, down=down, padding=padding, flip_filter=flip, gain=3)
    right = by_definition(x, fir.double(), up, down, padding, flip, 3)
    torch.testing.assert_close(ours, right)


@pytest.mark.parametrize(("up", "down"), RESAMPLING)
@pytest.mark.parametrize("padding", [(1, 1, 1, 1), (2, 1, 0, 2)])
def test_it_is_differentiable_twice(up, down, padding):
    x = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fir = fir_filter([1.0, 2.0, 4.0, 1.0])

    def filtered(x):
        return upfirdn2d(x, fir, up=up, down=down, padding=padding).pow(3)

    x.requires_grad = True
    assert torch.autograd.gradcheck(filtered, (x,))
    assert torch.autograd.gradgradcheck(filtered, (x,))


INTERPRETED = """
import torch
from gemix.gan.models.fir import Correlation, _depthwise, _gpu_correlate, fir_filter
from gemix.gan.models.fir_triton import correlate
assert _gpu_correlate(torch.device("cpu")) is correlate
torch.manual_seed(0)
fir = fir_filter([1.0, 2.0, 4.0, 1.0])
last, first = torch.channels_last, torch.contiguous_format
for channels, layout, up, down, offset, flip, *size in (
    (1, first, 2, 1, (2, 2), False),
    (3, last, 1, 2, (1, 1), True),
    (3, first, 1, 1, (2, 0), True),
    (70, last, 2, 1, (-1, 1), False),
    (70, last, 3, 2, (3, 1), True),
    (70, last, 1, 1, (2, 1), False),
    (3, last, 1, 1, (-1, 0), True),
    (3, first, 2, 1, (2, 2), False, 1, 1),  # of one pixel, which is in both formats
    (3, last, 1, 2, (2, 2), False, 1, 1),
):
    x = torch.randn(2, channels, 7, 6).contiguous(memory_format=layout)
    arguments = x, fir, Correlation(3.0, flip, offset, up, down, tuple(size) or (5, 4))
    got, right = correlate(*arguments), _depthwise(*arguments)
    assert got.is_contiguous(memory_format=layout)
    torch.testing.assert_close(got, right)
"""


def test_the_kernel_for_gpus_computes_the_same():
    """In Triton's interpreter; tests/gpu runs it compiled."""
    run_interpreted(INTERPRETED)
