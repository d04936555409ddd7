"""Worker processes of a test."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable

import torch.multiprocessing as mp

# Processes are forked from a server that has imported PyTorch, which takes longer than most of what
# is tested. Their environment variables are those of the server's start.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["torch", "gemix.gan.training.loop"])


def run_processes(worker: Callable[..., None], args: tuple, nprocs: int) -> None:
    """Run `worker(rank, *args)` in each process, as ``torch.multiprocessing.spawn``."""
    mp.start_processes(worker, args=args, nprocs=nprocs, start_method="forkserver")
