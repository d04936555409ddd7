"""Convolutions against PyTorch's, and their derivatives against numerical ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gemix.gan.models.conv import conv2d, conv_transpose2d

CONVOLUTIONS = [
    (conv2d, F.conv2d, {"padding": 1}),
    (conv2d, F.conv2d, {"stride": 2}),  # of 7 rows none, and of 6 rows one takes no part
    (conv2d, F.conv2d, {"stride": 2, "padding": 1}),
    (conv_transpose2d, F.conv_transpose2d, {"stride": 2}),
]


def tensors(function):
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        found = torch.randn(shape, generator=generator, dtype=torch.float64)
        return found.requires_grad_()

    weight = randn(3, 4, 3, 3) if function is conv_transpose2d else randn(4, 3, 3, 3)
    return randn(2, 3, 7, 6), weight, randn(4)


@pytest.mark.parametrize(("ours", "theirs", "settings"), CONVOLUTIONS)
def test_it_computes_what_pytorch_does(ours, theirs, settings):
    x, weight, _ = tensors(ours)
    assert torch.equal(ours(x, weight, **settings), theirs(x, weight, **settings))


@pytest.mark.parametrize(("ours", "theirs", "settings"), CONVOLUTIONS)
def test_it_is_differentiable_twice(ours, theirs, settings):
    x, weight, _ = tensors(ours)

    def cubed(x, weight):
        return ours(x, weight, **settings).pow(3)

    assert torch.autograd.gradcheck(cubed, (x, weight))
    assert torch.autograd.gradgradcheck(cubed, (x, weight))


def test_a_bias_is_added_and_differentiable_twice():
    x, weight, bias = tensors(conv2d)
    assert torch.equal(conv2d(x, weight, bias), F.conv2d(x, weight, bias))

    def cubed(x, weight, bias):
        return conv2d(x, weight, bias).pow(3)

    assert torch.autograd.gradcheck(cubed, (x, weight, bias))
    assert torch.autograd.gradgradcheck(cubed, (x, weight, bias))


class LargestFilter(TorchDispatchMode):
    """Keeps the height of the largest filter that anything is convolved with."""

    def __init__(self):
        super().__init__()
        self.height = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.convolution.default:
            self.height = max(self.height, args[1].shape[2])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("convolve", "height"), [(conv2d, 3), (F.conv2d, 7)])
def test_a_gradient_penalty_has_no_filter_as_large_as_the_image(convolve, height):
    """PyTorch's own has: 7 rows and columns, one output for each."""
    x, weight, _ = tensors(conv2d)
    with LargestFilter() as largest:
        gradient = torch.func.grad(lambda x: convolve(x, weight, padding=1).pow(2).sum())(x)
        torch.autograd.grad(gradient.square().sum(), weight)
    assert largest.height == height
