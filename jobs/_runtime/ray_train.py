"""A training as a Ray Train run: workers, restarts, and how it is stopped."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import uuid
from collections.abc import Callable
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, UserCallback
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    remove_placement_group,
)

from gemix.config import ComputeConfig
from gemix.core.errors import TransientError
from gemix.core.stop import STOP, Stopped
from gemix.io.storage import Store
from gemix.steps.runtime.executor import TrainWorker, WorkerContext
from jobs._runtime.ray_cluster import describe_resources, shutdown
from jobs._runtime.ray_data import map_unordered
from jobs._runtime.ray_errors import (
    find_lost_process,
    find_user_error,
    find_worker_user_error,
    worker_lost,
)
from jobs._runtime.ray_flags import TrainingFlags, never
from jobs._runtime.ray_wait import resource_notice

_FLAGS = ("started", "polling", "stop")


def fit(
    name: str,
    worker: TrainWorker,
    settings: dict[str, Any],
    compute: ComputeConfig,
    resources: dict[str, float],
    storage: str,
) -> None:
    """Run `worker` with `settings` in every worker process of a torch.distributed process group.

    Workers that die, or raise a :class:`TransientError`, are started again up to
    ``compute.max_failures`` times (-1: for ever) and resume from what they had written. Any other
    error of gemix ends the run at once. After Ctrl-C or SIGTERM workers that poll for it save
    their work; others end at once.

    Args:
        resources: what each worker asks for (:func:`jobs._runtime.ray_cluster.worker_resources`).
        storage: directory or URL where Ray keeps what it needs to restart.

    Raises:
        GemixError: that of a worker, as it was raised there.
        WorkerLostError: if workers died more often than they may.
        TrainingFailedError: for other errors of a worker.
        Stopped: after Ctrl-C or SIGTERM.
    """
    log = logging.getLogger(f"gemix.{name}")
    log.info("%s", describe_resources(compute.workers, resources))
    flags = TrainingFlags(f"{name}-{uuid.uuid4().hex[:8]}")

    def run(settings: dict[str, Any]) -> None:
        if ray.train.get_context().get_world_rank() == 0:
            flags.set("started")
        with contextlib.suppress(Stopped):  # all workers stop after the same step
            worker(settings, _context(flags))
        # Ray Train's result is None unless something was reported
        ray.train.report({})

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
                failure_config=FailureConfig(
                    max_failures=compute.max_failures,
                    controller_failure_limit=0,  # else failed starts are not counted
                ),
                callbacks=[_EndAtMistakes(), _FreeFailedStarts()],
            ),
        ).fit()

    def train_with_restarts() -> None:
        for failures in itertools.count(1):
            try:
                train()
                return
            except TrainingFailedError as error:
                known, lost = find_user_error(error), find_lost_process(error)
                if known is not None:
                    raise known from error
                if lost is None:
                    raise
                # those that die later are counted by Ray
                starting = getattr(error, "controller_failure", None) is not None
                if not starting or 0 <= compute.max_failures < failures:
                    raise _too_often(name, compute, lost) from error
                if STOP.requested:
                    return
                log.warning("a worker died while the training started; starting again")

    try:
        with resource_notice(log, compute.workers, resources, lambda: flags.is_set("started")):
            _run_in_thread(train_with_restarts, flags)
    finally:
        flags.clear(*_FLAGS)


def _run_in_thread(work: Callable[[], None], flags: TrainingFlags) -> None:
    """Run in a second thread, while the main thread answers signals.

    In the main thread Ray Train would install a handler of its own, which ends the workers at once
    and keeps its controller alive.
    """
    raised: list[BaseException] = []

    def target() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=target, name="ray-train", daemon=True)
    watch = _FlagWatch(flags)
    try:
        with STOP.deferred(when=watch.polling.is_set):
            thread.start()
            watch.start()
            while thread.is_alive():
                thread.join(0.2)
            if raised and not STOP.requested:
                raise raised[0]
    except Stopped:
        if thread.is_alive():
            shutdown()  # ends the workers, wherever they are
        raise
    finally:
        watch.ended.set()


class _FlagWatch(threading.Thread):
    """Looks at the flags beside the main thread, whose signal handler must never wait."""

    def __init__(self, flags: TrainingFlags):
        super().__init__(name="stop-watch", daemon=True)
        self.flags = flags
        self.polling, self.ended = threading.Event(), threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            if STOP.requested:
                self.flags.set("stop")
                return
            if self.flags.is_set("polling"):
                self.polling.set()
            else:
                self.polling.clear()


class _FreeFailedStarts(WorkerGroupCallback, ControllerCallback):
    """Give back the resources of a group that fails to start.

    Ray forgets the group if a worker dies while the process group is set up, or before it has
    taken the training function; the placement group lives as long as the job, and every other
    group would wait for its resources.
    """

    def __init__(self) -> None:
        self._starting: PlacementGroup | None = None

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        self._starting = ray.get(workers[0].execute_async(get_current_placement_group))
        return {}

    def after_worker_group_training_start(self, worker_group: object) -> None:
        self._starting = None  # from here on Ray frees them itself

    def before_controller_execute_failure_decision(self, failure_decision: object) -> None:
        if self._starting is not None:
            remove_placement_group(self._starting)  # its workers end with it
            self._starting = None


class _EndAtMistakes(UserCallback):
    """End a run at a worker's first error that its user must correct: a restart would repeat it.

    Ray does not retry after an error here, in its controller. It stops the other workers too,
    which may wait for the failed one.
    """

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        known = find_worker_user_error(worker_exceptions)
        if known is not None and not isinstance(known, TransientError):
            raise known


def _too_often(name: str, compute: ComputeConfig, lost: BaseException) -> Exception:
    allowed = compute.max_failures
    return worker_lost(
        lost,
        f"{name}: a worker process or its node died, compute.max_failures={allowed}",
        "run the same command again, which resumes from the newest checkpoint; where memory ran "
        "out, use a smaller batch or fewer workers on a machine",
    )


def _context(flags: TrainingFlags) -> WorkerContext:
    """Return what this worker may use of its node."""
    node = ray.get_runtime_context().get_node_id()
    (memory,) = (n["Resources"]["memory"] for n in ray.nodes() if n["NodeID"] == node)
    first = ray.train.get_context().get_world_rank() == 0
    return WorkerContext(
        local_workers=ray.train.get_context().get_local_world_size(),
        memory_bytes=memory,
        map_unordered=map_unordered,
        polling=flags.polling if first else never,
    )
