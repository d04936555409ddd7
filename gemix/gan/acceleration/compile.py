"""Compile phases of a step: to CUDA graphs on GPUs, to generated C++ on CPUs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import torch

from gemix.core.errors import GemixError

P = ParamSpec("P")
R = TypeVar("R")


class CompileError(GemixError):
    """torch.compile failed on this machine or with this version of PyTorch."""


def compile_phase(function: Callable[P, R], device: torch.device) -> Callable[P, R]:
    """Compile a function to one graph forward, and one backward for what it returns.

    It must be pure, and shapes must be those of the first call. Its result lives until any compiled
    function is called again, gradients of its backward pass included: CUDA graphs reuse one memory
    pool. Clone what is needed for longer.
    """
    mode = "reduce-overhead" if device.type == "cuda" else None
    graph = torch.compile(function, fullgraph=True, dynamic=False, mode=mode)

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        torch.compiler.cudagraph_mark_step_begin()
        return graph(*args, **kwargs)

    return run


@contextlib.contextmanager
def wrap_compile_errors() -> Iterator[None]:
    """Raise errors of the compiler as one error with a remedy.

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
            f"torch.compile failed ({reason}); set gan.compile=false to train without it, "
            "with the same results up to rounding"
        ) from error
