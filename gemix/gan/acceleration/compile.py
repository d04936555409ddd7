"""Compile phases of a step: to CUDA graphs on GPUs, to generated C++ on CPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


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
