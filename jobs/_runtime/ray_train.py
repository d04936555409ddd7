"""A training of the library as a Ray Train run: workers, restarts, where Ray keeps its state."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import ray
import ray.train
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, UserCallback
from ray.train.torch import TorchTrainer

from gemix.config import ComputeConfig
from gemix.io.storage import Store
from gemix.steps.executor import TrainWorker, WorkerContext
from jobs._runtime.ray_cluster import find_user_error, find_worker_user_error
from jobs._runtime.ray_data import map_unordered


class _EndAtMistakes(UserCallback):
    """Ends a run at a worker's first error that its user can mend: another start would repeat it.

    An error here, in Ray's controller, is none that Ray tries again after. It stops the other
    workers too, which may wait for the failed one.
    """

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        known = find_worker_user_error(worker_exceptions)
        if known is not None:
            _hush()
            raise known


def _hush() -> None:
    """Keeps Ray from logging, in this process, tracebacks of an error that says all itself."""
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)


def fit(
    name: str,
    worker: TrainWorker,
    settings: dict[str, Any],
    compute: ComputeConfig,
    resources: dict[str, float],
    storage: str,
) -> None:
    """Runs `worker` with `settings` in every worker process, PyTorch's process group made.

    Workers that die are started again, up to ``compute.max_failures`` times, and go on from what
    they had written. What the user can mend ends the run at once.

    Args:
        resources: what each worker asks for (:func:`jobs._runtime.ray_cluster.worker_resources`).
        storage: directory or URL where Ray keeps what it needs to restart.

    Raises:
        GemixError: that of a worker, as it was raised there.
        TrainingFailedError: if workers died more often than they may.
    """

    def run(settings: dict[str, Any]) -> None:
        try:
            worker(settings, _context())
            # Ray Train's result is None unless something was reported
            ray.train.report({})
        except Exception as error:
            if find_user_error(error) is not None:
                _hush()
            raise

    def train() -> None:
        store = Store(storage)
        TorchTrainer(
            run,
            train_loop_config=settings,
            scaling_config=ScalingConfig(
                num_workers=compute.workers,
                use_gpu="GPU" in resources,
                resources_per_worker=resources,
            ),
            run_config=RunConfig(
                # a finished name would return its old result without training
                name=f"{name}-{uuid.uuid4().hex[:8]}",
                # our connection to S3, for its endpoint, timeouts and retries
                storage_path=store.root,
                storage_filesystem=None if store.is_local else store.filesystem,
                failure_config=FailureConfig(max_failures=compute.max_failures),
                callbacks=[_EndAtMistakes()],
            ),
        ).fit()

    for failures in range(compute.max_failures + 1):
        try:
            train()
            return
        except TrainingFailedError as error:
            known = find_user_error(error)
            if known is not None:
                raise known from error
            # Ray takes a worker that dies while the group starts for a failure of its own, after
            # which it does not try again
            died = isinstance(getattr(error, "controller_failure", None), RayActorError)
            if not died or failures == compute.max_failures:
                raise


def _context() -> WorkerContext:
    """Return what this worker may use of its node."""
    node = ray.get_runtime_context().get_node_id()
    (memory,) = (n["Resources"]["memory"] for n in ray.nodes() if n["NodeID"] == node)
    return WorkerContext(
        local_workers=ray.train.get_context().get_local_world_size(),
        memory_bytes=memory,
        map_unordered=map_unordered,
    )
