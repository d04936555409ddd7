"""Load Triton kernels, where this machine can run them."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from types import ModuleType

import torch

log = logging.getLogger("gemix.gan")


def load_kernels(
    name: str, run_once: Callable[[ModuleType], object], what: str
) -> ModuleType | None:
    """Import a module of kernels and run them once.

    Where that fails (no Triton, no C compiler for its launcher, a GPU too old for it), the reason
    is logged, and None returned: the operations of PyTorch compute the same.

    Args:
        name: of the module.
        run_once: calls its kernels on small tensors.
        what: the operation and its verb, for the log, such as "images are filtered".

    Raises:
        torch.OutOfMemoryError: since that is no reason to go on without them.
    """
    try:
        kernels = importlib.import_module(name)
        run_once(kernels)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        log.warning("%s without Triton, which is slower: %s", what, reason)
        return None
    return kernels
