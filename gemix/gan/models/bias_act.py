"""Epilogue of a convolution: demodulation, noise, bias, leaky ReLU, clamp, the next modulation.

On a GPU all of it takes one kernel (:mod:`gemix.gan.models.bias_act_triton`), with one more for the
first and one for the second derivatives that R1 and the path lengths need. Each of these operations
alone reads and writes a whole feature map, which bounds their speed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gemix.core.triton_kernels import load_kernels


class Activation(NamedTuple):
    """A leaky ReLU with a gain and a clamp after it.

    Attributes:
        slope: for negative values; 1 is the identity.
        gain: factor on the activation, positive.
        clamp: bound on the absolute value after the gain; infinity for none.
    """

    slope: float = 1.0
    gain: float = 1.0
    clamp: float = math.inf


IDENTITY = Activation()


def bias_act(
    x: Tensor,
    activation: Activation,
    *,
    demodulation: Tensor | None = None,
    noise: Tensor | None = None,
    noise_strength: Tensor | None = None,
    bias: Tensor | None = None,
    styles: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Return activation(x * demodulation + noise * noise_strength + bias) * styles + residual.

    Args:
        x: [N, C, H, W]; it may be overwritten.
        demodulation: factors on the channels of each image, float32 [N, C].
        noise: float32 [N, 1, H, W] or [H, W]; it has no derivative.
        noise_strength: float32 scalar.
        bias: float32 [C].
        styles: factors on the channels that the next convolution sees, float32 [N, C].
        residual: [N, C, H, W], of the dtype of x.

    Returns:
        [N, C, H, W], of the dtype of x.
    """
    arguments = x, demodulation, noise, noise_strength, bias, styles
    if is_fused(x):
        return _BiasAct.apply(activation, residual, *arguments)
    return _separate_operations(activation, residual, *arguments)


def modulate(x: Tensor, styles: Tensor) -> Tensor:
    """Scale the channels of x [N, C, H, W] by float32 styles [N, C]."""
    return bias_act(x, IDENTITY, styles=styles)


def is_fused(x: Tensor) -> bool:
    """Return whether :func:`bias_act` takes one kernel, so that a gain costs nothing in it."""
    return x.is_cuda and not torch.compiler.is_compiling() and _kernels(x.device) is not None


@functools.cache
def _kernels(device: torch.device) -> ModuleType | None:
    """Return the Triton kernels, or None where they do not run."""

    def run_once(kernels: ModuleType) -> None:
        one, row = torch.ones(1, 1, 1, 1, device=device), torch.ones(1, 1, device=device)
        given = one, row, one, row[0, 0], row[0], row
        activation = Activation(0.2, 1.0, 1.0)
        kernels.forward(activation, one, *given)
        of_x, sums = kernels.backward(activation, one, *given)
        kernels.double_backward(activation, of_x, sums, one, *given)

    return load_kernels("gemix.gan.models.bias_act_triton", run_once, "activations are computed")


def _separate_operations(
    activation: Activation,
    residual: Tensor | None,
    x: Tensor,
    demodulation: Tensor | None,
    noise: Tensor | None,
    noise_strength: Tensor | None,
    bias: Tensor | None,
    styles: Tensor | None,
) -> Tensor:
    """Compute :func:`bias_act` by PyTorch's operations."""
    dtype, gain, small = x.dtype, activation.gain, 1.0
    if demodulation is not None:
        # a leaky ReLU commutes with a positive factor, so the gain goes into what is small
        gain, small = 1.0, gain
        demodulation = (demodulation * small).to(dtype)[:, :, None, None]
        bias = None if bias is None else bias * small
    if noise is not None:
        noise = (noise * (noise_strength * small)).to(dtype)
    match demodulation, noise:
        case None, None:
            pass
        case None, _:
            x = x + noise
        case _, None:
            x = x * demodulation
        case _:
            x = torch.addcmul(noise, x, demodulation)
    if bias is not None:
        x += bias[:, None, None].to(dtype)
    if activation.slope != 1:
        x = F.leaky_relu_(x, activation.slope)
    if not math.isclose(gain, 1):
        x = x * gain
    if math.isfinite(activation.clamp):
        x = x.clamp(-activation.clamp, activation.clamp)
    if styles is not None:
        x = x * styles.to(dtype)[:, :, None, None]
    return x if residual is None else x + residual


class _BiasAct(torch.autograd.Function):
    """:func:`bias_act` by kernels, differentiable twice."""

    @staticmethod
    def forward(activation, residual, x, *factors):
        return _kernels(x.device).forward(activation, residual, x, *factors)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.activation, residual, *arguments = inputs
        ctx.has_residual = residual is not None
        ctx.save_for_backward(*arguments)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        arguments = ctx.saved_tensors
        of_x, sums = _BiasActBackward.apply(ctx.activation, gradient, *arguments)
        residual = gradient if ctx.has_residual else None
        return None, residual, of_x, *_of_arguments(sums, arguments)


class _BiasActBackward(torch.autograd.Function):
    """Derivatives of :func:`bias_act`: by x, and sums over pixels [4, N, C] for its factors."""

    @staticmethod
    def forward(activation, gradient, *arguments):
        return _kernels(gradient.device).backward(activation, gradient, *arguments)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.activation, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx, of_x: Tensor, of_sums: Tensor):
        if torch.is_grad_enabled():  # they would be lost without a word
            raise NotImplementedError("bias_act: third derivatives; differentiate it twice at most")
        gradient, *arguments = ctx.saved_tensors
        by_gradient, by_x, sums = _kernels(gradient.device).double_backward(
            ctx.activation, of_x, of_sums, gradient, *arguments
        )
        return None, by_gradient, by_x, *_of_arguments(sums, arguments)


def _of_arguments(
    sums: Tensor | None, arguments: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Return the derivatives by all arguments after x, from their sums over pixels [4, N, C]."""
    _, demodulation, _, noise_strength, bias, styles = arguments
    if sums is None:
        return None, None, None, None, None
    by_demodulation, by_strength, by_bias, by_styles = sums.unbind(0)
    return (
        None if demodulation is None else by_demodulation,
        None,
        None if noise_strength is None else by_strength.sum(),
        None if bias is None else by_bias.sum(dim=0),
        None if styles is None else by_styles,
    )
