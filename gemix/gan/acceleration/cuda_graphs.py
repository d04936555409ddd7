"""Capture phases of a step as CUDA graphs, which the host replays with two launches each.

Without them a step is thousands of launches, for which a fast GPU waits: at 128x128 the host took
164 ms a step to launch what an H100 computes in a fraction of that (docs/performance.md).
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from gemix.core.errors import GemixError

P = ParamSpec("P")
R = TypeVar("R")


class CaptureError(GemixError):
    """A phase could not be captured as a CUDA graph on this machine."""


def capture_phase(function: Callable[P, R], trained: nn.Module, pool: Any) -> Callable[P, R]:
    """Return the function as one CUDA graph forward, and one backward, captured when first called.

    It must be pure, launch the same kernels for all arguments, which are tensors or None, and never
    wait for the device. Its result lives until any phase of the same pool is called again,
    gradients of its backward pass included. Clone what is needed for longer.

    Args:
        trained: holds the parameters that its result is differentiated for.
        pool: of memory, which phases that run one after another share
            (``torch.cuda.graph_pool_handle``).

    Raises:
        CaptureError: by the first call, with a remedy.
    """
    phase: _Phase | None = None
    graph: Callable[..., Any] | None = None

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal phase, graph
        if phase is None or graph is None:
            phase = _Phase(function, trained, args)
            graph = _capture(phase, args, pool)
        outputs = graph(*(argument for argument in args if argument is not None))
        if isinstance(outputs, Tensor):
            return outputs
        # to autograd all outputs of a graph depend on its parameters
        kept = zip(outputs, phase.is_differentiable, strict=True)
        return tuple(output if keeps else output.detach() for output, keeps in kept)

    return run


class _Phase(nn.Module):
    """A function of tensors whose parameters are those that it is differentiated for.

    Attributes:
        is_differentiable: whether each of its outputs is, when it has been called.
    """

    def __init__(
        self, function: Callable[..., Any], trained: nn.Module, args: tuple[Tensor | None, ...]
    ):
        super().__init__()
        self.function, self.trained = function, trained
        self.is_given = [argument is not None for argument in args]
        self.is_differentiable: list[bool] = []

    def forward(self, *tensors: Tensor) -> Any:
        """Call the function, with None where it was captured with None."""
        left = iter(tensors)
        outputs = self.function(*(next(left) if given else None for given in self.is_given))
        if not isinstance(outputs, Tensor):
            self.is_differentiable = [output.requires_grad for output in outputs]
        return outputs


def _capture(phase: _Phase, args: tuple[Tensor | None, ...], pool: Any) -> Callable[..., Any]:
    # clones, since later arguments are copied into the memory of these
    samples = tuple(argument.clone() for argument in args if argument is not None)
    # the replayed backward pass leaves its stream on purpose, which autograd warns of
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    try:
        with _no_garbage_collection():
            return torch.cuda.make_graphed_callables(
                phase, samples, allow_unused_input=True, pool=pool
            )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise CaptureError(
            f"capturing a phase as a CUDA graph failed ({reason}); set gan.cuda_graphs=false to "
            "train without, with the same results, more slowly"
        ) from error


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect garbage before, and none within.

    An earlier trainer, of a training that fell back, is part of reference cycles. To free its CUDA
    graphs while another one is captured is an error.
    """
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
