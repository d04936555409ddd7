"""The executor of the steps on Ray: Ray Data for maps, Ray Train for trainings.

Ray and PyTorch take seconds to import, so both are imported when they are first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gemix.config import ComputeConfig
from gemix.steps.runtime.executor import LocalExecutor, TrainWorker


class RayExecutor:
    """Run steps on Ray (interface: `Executor`), which is started when it is first needed."""

    def require(self, compute: ComputeConfig) -> None:
        """See the interface; with 0 workers a training needs no Ray."""
        if compute.workers == 0:
            LocalExecutor().require(compute)
            return
        from jobs._runtime.ray_cluster import connect, worker_resources

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
        """See the interface."""
        from jobs._runtime.ray_cluster import connect, worker_resources
        from jobs._runtime.ray_data import map_in_tasks
        from jobs._runtime.ray_wait import notice_until_first

        connect()
        resources = {"CPU": 1.0} if compute is None else worker_resources(compute)
        results = map_in_tasks(function, inputs, title=title, unit=unit, resources=resources)
        yield from notice_until_first(results, title, resources)

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
        """See the interface."""
        from jobs._runtime.ray_cluster import connect, worker_resources
        from jobs._runtime.ray_data import map_in_actors
        from jobs._runtime.ray_wait import notice_until_first

        connect()
        resources = worker_resources(compute)
        results = map_in_actors(
            build,
            inputs,
            title=title,
            unit=unit,
            resources=resources,
            actors=compute.ranks,
            weights=weights,
        )
        yield from notice_until_first(results, title, resources)

    def train(
        self,
        name: str,
        worker: TrainWorker,
        settings: dict[str, Any],
        compute: ComputeConfig,
        storage: str,
    ) -> None:
        """See the interface; with 0 workers it runs in this process."""
        if compute.workers == 0:
            LocalExecutor().train(name, worker, settings, compute, storage)
            return
        from jobs._runtime.ray_cluster import connect, worker_resources
        from jobs._runtime.ray_train import fit

        connect()
        fit(name, worker, settings, compute, worker_resources(compute), storage)
