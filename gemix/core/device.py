"""The device, the precision, the memory format and the compilation of computations."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from gemix.core.distributed import Workers
from gemix.core.environment import SHARE_FOR_IMAGES
from gemix.core.errors import GemixError


def default_device() -> torch.device:
    """Return the current CUDA device, or the CPU if there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def image_memory(device: torch.device) -> float:
    """Return how many bytes of a GPU's own memory a training set may take; infinity for a CPU."""
    if device.type != "cuda":
        return math.inf
    return SHARE_FOR_IMAGES * torch.cuda.get_device_properties(device).total_memory


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of convolutions for a `precision` setting.

    `tf32` is float32 with products of rounded inputs (:func:`float32_products`). `auto` is bfloat16
    if the hardware supports it natively (compute capability 8.0, AVX512-BF16), else float32:
    emulated bfloat16 is slower and less exact.
    """
    if precision != "auto":
        return torch.float32 if precision == "tf32" else getattr(torch, precision)
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def precision_name(precision: str, device: torch.device) -> str:
    """Return what a `precision` setting computes in on a device: float32, tf32 or bfloat16.

    Only GPUs have TF32.
    """
    if precision == "tf32" and device.type == "cuda":
        return precision
    return str(compute_dtype(precision, device)).removeprefix("torch.")


def resolve_precision(device: torch.device, workers: Workers) -> str:
    """Return the precision that `auto` means on all workers: bfloat16 if each supports it."""
    lacks = float(compute_dtype("auto", device) != torch.bfloat16)
    return "float32" if workers.all_reduce_sum(torch.tensor(lacks, device=device)) else "bfloat16"


@contextlib.contextmanager
def float32_products(*, tf32: bool = False) -> Iterator[None]:
    """Compute float32 on GPUs with all 24 bits of the mantissa; a context manager or decorator.

    By default cuDNN rounds the inputs of convolutions to TF32, which has 11 bits.

    Args:
        tf32: whether inputs of convolutions and matrix products are rounded to TF32.
    """
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = tf32
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


@contextlib.contextmanager
def cudnn_benchmark() -> Iterator[None]:
    """Let cuDNN time its algorithms and use the fastest; pays off where shapes repeat."""
    before = torch.backends.cudnn.benchmark
    try:
        torch.backends.cudnn.benchmark = True
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class HostCopy:
    """A copy of a tensor on the host, which does not wait for the GPU to make it."""

    def __init__(self, tensor: Tensor):
        self._event = None
        if not tensor.is_cuda:
            self._copy = tensor.clone()
            return
        try:
            self._copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        except RuntimeError:  # no memory that can be pinned
            self._copy = tensor.cpu()
            return
        self._copy.copy_(tensor, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record()

    def wait(self) -> Tensor:
        """Return the copy when it is complete."""
        if self._event is not None:
            self._event.synchronize()
        return self._copy


def match_memory_format(optimizer: torch.optim.Optimizer) -> None:
    """Give the moments of an optimizer that was loaded the memory format of their parameters.

    Files keep no memory format, and fused optimizers read parameters and moments in the order of
    memory: with another one they would compute something else.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


class CompileError(GemixError):
    """torch.compile failed on this machine or with this version of PyTorch."""


@contextlib.contextmanager
def wrap_compile_errors(setting: str) -> Iterator[None]:
    """Raise errors of the compiler as one error with a remedy.

    Args:
        setting: that asks for it: ``gan.compile``.

    Raises:
        CompileError: in place of PyTorch's own errors.
    """
    try:
        yield
    except RuntimeError as error:
        from torch._dynamo.exc import TorchDynamoException  # takes a second to import

        if not isinstance(error, TorchDynamoException):
            raise
        reason = " ".join(str(error).strip().splitlines()[:2])  # the backend, and its complaint
        raise CompileError(
            f"torch.compile failed ({reason}); set {setting}=false to train without it, "
            "with the same results up to rounding"
        ) from error
