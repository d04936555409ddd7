"""Where the work of a step runs: in this process, or on a cluster that ``jobs/`` binds it to.

A step asks an :class:`Executor` for three things: a function applied to many inputs, the same with
an object that is costly to build, and a training on several workers. The steps know nothing of
Ray; a notebook calls them with the :class:`LocalExecutor`, which is the default.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from gemix.config import ComputeConfig
from gemix.core.environment import SHARE_FOR_IMAGES
from gemix.core.errors import ConfigError
from gemix.core.progress import Progress
from gemix.core.stop import STOP

MapUnordered = Callable[[Callable[[Any], Any], Sequence[Any], int], Iterator[Any]]
"""Apply a function to inputs, at most so many at once; yield results as they are there."""

Polling = Callable[[], contextlib.AbstractContextManager[Callable[[], bool]]]
"""Enter while a training polls for a stop; yields a function that tells whether to stop."""


@contextlib.contextmanager
def poll_signals() -> Iterator[Callable[[], bool]]:
    """Poll the signals of this process."""
    with STOP.deferred():
        yield lambda: STOP.requested


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """Resources of the machine that a worker of a training may use.

    Attributes:
        local_workers: workers of this training on this machine, this one included.
        memory_bytes: memory of the machine that the workers on it share.
        map_unordered: applies a function to inputs beside the training; neither takes a core that
            a worker was promised.
        polling: entered by a training that saves its work when it is to stop; any other is
            stopped wherever it is.
    """

    local_workers: int
    memory_bytes: float
    map_unordered: MapUnordered
    polling: Polling = poll_signals

    @property
    def image_memory(self) -> float:
        """Bytes of the machine's memory that the images of one worker may take.

        Those of a GPU pass through it too.
        """
        return SHARE_FOR_IMAGES * self.memory_bytes / self.local_workers


TrainWorker = Callable[[dict[str, Any], WorkerContext], None]


class Executor(Protocol):
    """Run the work of the steps."""

    def require(self, compute: ComputeConfig) -> None:
        """Start what is needed, and check that a worker's resources can be had.

        Steps call it before they open their output.

        Raises:
            ConfigError: if they cannot.
        """

    def map(
        self,
        function: Callable[[Any], Any],
        inputs: Sequence[Any],
        *,
        title: str,
        unit: str,
        compute: ComputeConfig | None = None,
    ) -> Iterator[Any]:
        """Yield the result of each input, in their order, as soon as it and those before are there.

        Args:
            function: picklable; an error of it ends the whole.
            inputs: picklable.
            title, unit: of the progress report: "prepare", "slices".
            compute: each call gets the resources of one worker; by default one core.
        """

    def map_with_state(
        self,
        build: Callable[[], Callable[[Any], Any]],
        inputs: Sequence[Any],
        *,
        title: str,
        unit: str,
        compute: ComputeConfig,
        weights: Sequence[int],
    ) -> Iterator[Any]:
        """Yield the results of a callable that is built once a process, in the inputs' order.

        Args:
            build: picklable; returns the callable, which may hold a network.
            compute: each process gets the resources of one worker; there are ``compute.ranks``.
            weights: how far each input advances the progress report, in units.
        """

    def train(
        self,
        name: str,
        worker: TrainWorker,
        settings: dict[str, Any],
        compute: ComputeConfig,
        storage: str,
    ) -> None:
        """Run `worker` with `settings` on ``compute.workers`` workers of one process group.

        Workers that die are started again, up to ``compute.max_failures`` times; -1 for ever.

        Args:
            name: of the step, which is that of its logger too.
            storage: directory or URL for what a restart needs.

        Raises:
            GemixError: that of a worker, as it was raised there.
            WorkerLostError: if workers died more often than they may.
            Stopped: after Ctrl-C or SIGTERM, when the workers have saved their work.
        """


class LocalExecutor:
    """Run everything in this process, one after another."""

    def require(self, compute: ComputeConfig) -> None:
        """See :class:`Executor`."""
        if compute.workers > 1:
            raise ConfigError(
                f"compute.workers={compute.workers}: without Ray a step runs in one process; set "
                "compute.workers=1, or run it as a job (gemix, or python -m jobs.<step>)"
            )
        if compute.gpus_per_worker:
            import torch  # takes seconds to import

            if not torch.cuda.is_available():
                raise ConfigError(
                    f"compute.gpus_per_worker={compute.gpus_per_worker:g}: PyTorch finds no GPU on "
                    "this machine; set it to 0 to run on the CPU"
                )

    def map(
        self,
        function: Callable[[Any], Any],
        inputs: Sequence[Any],
        *,
        title: str,
        unit: str,
        compute: ComputeConfig | None = None,
    ) -> Iterator[Any]:
        """See :class:`Executor`."""
        del compute
        with Progress(title, len(inputs), unit) as progress:
            for one in inputs:
                yield function(one)
                progress.update()

    def map_with_state(
        self,
        build: Callable[[], Callable[[Any], Any]],
        inputs: Sequence[Any],
        *,
        title: str,
        unit: str,
        compute: ComputeConfig,
        weights: Sequence[int],
    ) -> Iterator[Any]:
        """See :class:`Executor`."""
        del compute
        function = build()
        with Progress(title, sum(weights), unit) as progress:
            for one, weight in zip(inputs, weights, strict=True):
                yield function(one)
                progress.update(weight)

    def train(
        self,
        name: str,
        worker: TrainWorker,
        settings: dict[str, Any],
        compute: ComputeConfig,
        storage: str,
    ) -> None:
        """See :class:`Executor`; nothing is started again here."""
        del name, storage
        self.require(compute)
        worker(settings, local_context())


def local_context() -> WorkerContext:
    """Return the context of a training of one worker in this process."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return WorkerContext(local_workers=1, memory_bytes=memory, map_unordered=_map_in_threads)


def _map_in_threads(
    function: Callable[[Any], Any], inputs: Sequence[Any], concurrency: int
) -> Iterator[Any]:
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        pending = [pool.submit(function, one) for one in inputs]
        for done in concurrent.futures.as_completed(pending):
            yield done.result()
