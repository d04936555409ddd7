"""Functions run as compiled graphs: on GPUs as CUDA graphs, on CPUs as generated C++."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import torch

from gemix.core.errors import GemixError

P = ParamSpec("P")
R = TypeVar("R")


class CompileError(GemixError):
    """The compiler of this machine, or of this version of PyTorch, does not manage a phase."""


def compiled(function: Callable[P, R], device: torch.device) -> Callable[P, R]:
    """The function as one graph forward, and one backward for what it returns.

    It must be pure, and shapes must be those of the first call. What it returns lives until any
    compiled function is called again, gradients of its backward pass included: CUDA graphs use
    one memory, over and over. What is needed for longer has to be cloned.
    """
    mode = "reduce-overhead" if device.type == "cuda" else None
    graph = torch.compile(function, fullgraph=True, dynamic=False, mode=mode)

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        torch.compiler.cudagraph_mark_step_begin()
        return graph(*args, **kwargs)

    return run


@contextlib.contextmanager
def compiler_failures_explained() -> Iterator[None]:
    """Within: what the compiler fails with is told with its remedy.

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
