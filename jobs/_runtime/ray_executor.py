"""The executor of the steps on Ray: Ray Data for maps, Ray Train for trainings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gemix.config import ComputeConfig
from gemix.steps.executor import LocalExecutor, TrainWorker
from jobs._runtime.ray_cluster import connect, worker_resources


class RayExecutor:
    """Implements :class:`gemix.steps.executor.Executor`. Ray is started when it is first needed."""

    def require(self, compute: ComputeConfig) -> None:
        """See :class:`gemix.steps.executor.Executor`."""
        connect()
        worker_resources(compute)

    def map(
        self,
        function: Callable[[Any], Any],
        inputs: Sequence[Any],
        *,
        title: str,
        unit: str,
        compute: ComputeConfig | None = None,
    ) -> Iterator[Any]:
        """See :class:`gemix.steps.executor.Executor`."""
        from jobs._runtime.ray_data import map_in_tasks

        connect()
        resources = {"CPU": 1.0} if compute is None else worker_resources(compute)
        yield from map_in_tasks(function, inputs, title=title, unit=unit, resources=resources)

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
        """See :class:`gemix.steps.executor.Executor`."""
        from jobs._runtime.ray_data import map_in_actors

        connect()
        yield from map_in_actors(
            build,
            inputs,
            title=title,
            unit=unit,
            resources=worker_resources(compute),
            actors=compute.ranks,
            weights=weights,
        )

    def train(
        self,
        name: str,
        worker: TrainWorker,
        settings: dict[str, Any],
        compute: ComputeConfig,
        storage: str,
    ) -> None:
        """See :class:`gemix.steps.executor.Executor`; with 0 workers it runs in this process."""
        if compute.workers == 0:
            LocalExecutor().train(name, worker, settings, compute, storage)
            return
        from jobs._runtime.ray_train import fit  # loads PyTorch, which takes seconds

        connect()
        fit(name, worker, settings, compute, worker_resources(compute), storage)
