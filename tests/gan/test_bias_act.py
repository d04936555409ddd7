"""What follows a convolution: by operations, and by the kernels for GPUs."""

from __future__ import annotations

import pytest
import torch

from gemix.gan.models.bias_act import Activation, bias_act
from tests.triton_interpreter import run_interpreted

N, C, H, W = 2, 3, 4, 5


def tensors(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return {
        "x": randn(N, C, H, W),
        "demodulation": randn(N, C),
        "noise": randn(N, 1, H, W),
        "noise_strength": randn([]),
        "bias": randn(C),
        "styles": randn(N, C),
        "residual": randn(N, C, H, W),
    }


def test_it_is_what_it_says():
    given = tensors()
    found = bias_act(given["x"].clone(), Activation(0.2, 3.0, 1.5), **without(given, "x"))
    for n, c, h, w in ((0, 0, 0, 0), (1, 2, 3, 4), (0, 1, 2, 3), (1, 0, 1, 1)):
        u = given["x"][n, c, h, w] * given["demodulation"][n, c]
        u += given["noise"][n, 0, h, w] * given["noise_strength"] + given["bias"][c]
        a = 3.0 * (u if u > 0 else 0.2 * u)
        right = a.clamp(-1.5, 1.5) * given["styles"][n, c] + given["residual"][n, c, h, w]
        torch.testing.assert_close(found[n, c, h, w], right)


@pytest.mark.parametrize("left_out", ["demodulation", "noise", "bias", "styles", "residual"])
def test_what_is_not_given_changes_nothing(left_out):
    given = tensors()
    rest = without(given, "x", left_out, *(["noise_strength"] if left_out == "noise" else []))
    neutral = torch.ones_like if left_out in ("demodulation", "styles") else torch.zeros_like
    activation = Activation(0.2, 2.0)
    found = bias_act(given["x"].clone(), activation, **rest)
    same = bias_act(
        given["x"].clone(), activation, **without(given, "x") | {left_out: neutral(given[left_out])}
    )
    torch.testing.assert_close(found, same)


def without(given, *names):
    return {name: value for name, value in given.items() if name not in names}


INTERPRETED = """
import math
import torch
from gemix.gan.models import bias_act as module, bias_act_triton
from gemix.gan.models.bias_act import Activation, _separate_operations, bias_act
assert module._kernels(torch.device("cpu")) is bias_act_triton
module.is_fused = lambda x: True
generator = torch.Generator().manual_seed(0)

def randn(*shape):
    return torch.randn(shape, generator=generator)

def case(n, channels, height, width, wide_noise, activation, given):
    x = randn(n, channels, height, width)
    noise = randn(n, 1, height, width) if wide_noise else randn(height, width)
    everything = {
        "demodulation": randn(n, channels), "noise": noise, "noise_strength": randn(),
        "bias": randn(channels), "styles": randn(n, channels), "residual": randn(*x.shape),
    }
    chosen = {name: value for name, value in everything.items() if name in given}
    differentiated = {"x": x} | {k: v for k, v in chosen.items() if k != "noise"}
    weight, weights = randn(*x.shape), [randn(*v.shape) for v in differentiated.values()]

    def fused(x, **rest):
        return bias_act(x, activation, **rest)

    def separate(x, **rest):
        names = "demodulation", "noise", "noise_strength", "bias", "styles"
        given = [rest.get(name) for name in names]
        return _separate_operations(activation, rest.get("residual"), x.clone(), *given)

    def results(function):
        leaves = {k: v.clone().requires_grad_() for k, v in differentiated.items()}

        def scalar(values):
            y = function(**values, **{k: v for k, v in chosen.items() if k == "noise"})
            return (y.pow(2) * weight).sum(), y

        # as the regularizers differentiate
        first, y = torch.func.grad(scalar, has_aux=True)(leaves)
        mixed = sum((first[k] * w).sum() for k, w in zip(leaves, weights))
        second = torch.autograd.grad(mixed, list(leaves.values()), allow_unused=True)
        return [y, *first.values(), *second]

    for got, right in zip(results(fused), results(separate), strict=True):
        if right is None:
            assert got is None or not got.any()
        else:
            torch.testing.assert_close(got, right, rtol=2e-4, atol=2e-4)

of_generator = "demodulation", "noise", "noise_strength", "bias", "styles"
limited, free = Activation(0.2, math.sqrt(2), 1.0), Activation(0.2, 0.5)
case(2, 70, 7, 6, True, limited, of_generator)
case(3, 5, 9, 8, False, free, of_generator)
case(2, 16, 4, 4, True, limited, of_generator[:4])
case(2, 16, 4, 4, True, free, ("demodulation", "bias"))
case(2, 8, 5, 6, True, limited, ("bias", "residual"))
case(2, 8, 5, 6, True, free, ("bias",))
case(2, 8, 40, 40, True, Activation(), ("styles",))
case(1, 1, 3, 3, True, Activation(), ())

x = randn(1, 2, 2, 2).requires_grad_()
first, = torch.autograd.grad(bias_act(x, limited, bias=randn(2)).pow(3).sum(), x, create_graph=True)
second, = torch.autograd.grad(first.sum(), x, retain_graph=True)
try:
    torch.autograd.grad(first.sum(), x, create_graph=True)
except NotImplementedError as error:
    assert "third derivatives" in str(error)
else:
    raise AssertionError("third derivatives were lost")

at_zero = torch.zeros(1, 1, 1, 1, requires_grad=True)
slope = torch.autograd.grad(bias_act(at_zero, free, bias=torch.zeros(1)).sum(), at_zero)[0]
torch.testing.assert_close(slope.flatten(), torch.tensor([0.1]))

x = torch.tensor([[[[math.nan, math.inf, -math.inf]]]])
found = bias_act(x, Activation(0.2, 1.0, 2.0))
assert found.isnan().tolist() == [[[[True, False, False]]]]
assert found[0, 0, 0, 1:].tolist() == [2, -2]

half = randn(2, 16, 8, 8).bfloat16().contiguous(memory_format=torch.channels_last)
found = bias_act(half, limited, bias=randn(16))
assert found.dtype == torch.bfloat16
assert found.is_contiguous(memory_format=torch.channels_last)
"""


def test_the_kernels_for_gpus_compute_the_same():
    """In Triton's interpreter, with second derivatives; tests/gpu runs them compiled."""
    run_interpreted(INTERPRETED)
