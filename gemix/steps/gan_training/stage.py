"""One stage of a GAN training on one worker: the training loop with its checkpoints."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gemix.core.distributed import AsyncFlag, Workers
from gemix.core.errors import DiskFullError
from gemix.core.stop import Stopped
from gemix.gan.checkpoints.checkpoint import TrainingSpec, checkpoints, save_checkpoint
from gemix.gan.data.dataset import TrainingDataset
from gemix.gan.models.base import ImageGenerator
from gemix.gan.training.loop import train
from gemix.gan.training.replicas import check_replicas
from gemix.gan.training.stages import FirstWeights, resume_or_start
from gemix.gan.training.state import TrainingState
from gemix.io.storage import Store
from gemix.steps.gan_training.checkpoint_writer import WRITE_ERRORS, CheckpointWriter
from gemix.steps.gan_training.log import LOG_POINTS, TrainingLog
from gemix.steps.runtime.executor import Polling, poll_signals
from gemix.tracking.mlflow_run import Run

# of several workers, which stop after the same step: that of the poll after rank 0 was told
_STEPS_BETWEEN_POLLS = 4


class Stage:
    """Train from the newest checkpoint, or from the start, to the end.

    Args:
        store: the directory of its checkpoints and its log.
        run: the MLflow run that rank 0 logs to.
        first_weights: the weights to start from; by default new ones.
        polling: tells whether to stop.

    Attributes:
        log: the training log on rank 0, None elsewhere.
    """

    def __init__(
        self,
        store: Store,
        spec: TrainingSpec,
        data: TrainingDataset,
        workers: Workers,
        run: Run,
        first_weights: FirstWeights = None,
        polling: Polling = poll_signals,
    ):
        self.store, self.spec, self.data, self.workers = store, spec, data, workers
        self.first_weights, self.polling = first_weights, polling
        self.log = TrainingLog(store, spec, run) if workers.rank == 0 else None
        logger = self.log.logger if self.log else logging.getLogger("gemix.train-gan")
        self.writer = CheckpointWriter(store, spec, logger)
        config = spec.config
        self.log_steps = max(1, config.steps // LOG_POINTS)
        self.latest: dict[str, Tensor] = {}  # values of the newest step that had each of them
        self.due = False  # whether a snapshot is waiting to be taken
        self.snapshot_steps = max(1, round(config.snapshot_kimg * 1000 / config.batch))

    def run(
        self, at_snapshot: Callable[[TrainingState, int], None] = lambda state, number: None
    ) -> TrainingState:
        """Train to the end, or until a stop is requested; then save a checkpoint.

        Args:
            at_snapshot: called on every worker before a checkpoint is written, with the state and
                the number of the snapshot.

        Raises:
            Stopped: on every worker after the same step, if a stop is requested.
        """

        config = self.spec.config

        def on_step(state, values):
            self.latest |= values
            if state.step % self.log_steps == 0 or state.step == config.steps:
                means = self._worker_means()
                if self.log:
                    self.log.step(state, means)
            self.due |= state.step % self.snapshot_steps == 0
            # a snapshot waits while steps fail: training would return to it
            if self.due and not state.failing_steps:
                self.due = False
                at_snapshot(state, state.step // self.snapshot_steps)
                self.save(state)
            if self._agree_to_stop(state, stop, should_stop):
                if not state.failing_steps:
                    self.save(state)
                self.writer.wait()
                if self.log:
                    self.log.logger.info("stopped after step %d of %d", state.step, self.log.total)
                raise Stopped()

        state = self.load_or_init_state()
        if self.log:
            self.log.start(state)
        stop = AsyncFlag(self.workers)
        try:
            with self.polling() as should_stop:
                return train(
                    state,
                    self.data,
                    config,
                    workers=self.workers,
                    on_step=on_step,
                    last_good=self.rollback,
                )
        finally:
            self.writer.wait()

    def _worker_means(self) -> dict[str, float]:
        """Return the latest values, averaged over the workers."""
        names = sorted(self.latest)
        values = torch.stack([self.latest[name].float() for name in names])
        return dict(zip(names, self.workers.all_reduce_mean(values).tolist(), strict=True))

    def _agree_to_stop(
        self, state: TrainingState, stop: AsyncFlag, should_stop: Callable[[], bool]
    ) -> bool:
        """Return on all workers whether rank 0 was to stop; no step waits for the answer."""
        if self.workers.size > 1 and state.step % _STEPS_BETWEEN_POLLS:
            return False
        return stop.exchange(should_stop())

    def finish(self, state: TrainingState, generator: ImageGenerator | None = None) -> None:
        """Write the last checkpoint, log and samples.

        Args:
            generator: that ships and the label path is of; None for the last one.
        """
        if self.log:
            with wrap_disk_full(self.store):
                self.log.finish(state, generator)
                save_checkpoint(self.store, state, self.spec)

    def load_or_init_state(self) -> TrainingState:
        """Return the state of the newest checkpoint, or a new one."""
        return resume_or_start(self.store, self.spec, self.data.device, self.first_weights)

    def rollback(self) -> TrainingState:
        """Return the state to resume from after steps kept failing."""
        self.writer.wait()
        self.workers.broadcast_bool(True, self.data.device)  # others wait until rank 0 has written
        state, self.due = self.load_or_init_state(), False
        self.latest.clear()
        if self.log:
            self.log.truncate_after(state, "the gradients of too many steps were not finite")
        return state

    def save(self, state: TrainingState) -> None:
        """Write log, samples and a checkpoint; where that fails, warn and let training continue."""
        check_replicas(state, self.workers)
        if not self.log:
            return
        try:
            # the log first: a resumed training drops what is newer than its checkpoint
            self.log.snapshot(state)
        except WRITE_ERRORS as error:
            self.writer.warn(state.step, error)
        else:
            self.writer.submit(state)


@contextlib.contextmanager
def wrap_disk_full(store: Store) -> Iterator[None]:
    """Name the remedy where the end of a training cannot be written.

    Raises:
        DiskFullError: naming the directory and the checkpoint that is left.
    """
    try:
        yield
    except (OSError, DiskFullError) as error:
        kept = checkpoints(store)
        raise DiskFullError(
            f"{store.url}: the end of the training cannot be written ({error}); make room and run "
            f"the same command again, which goes on from {kept[-1] if kept else 'its beginning'}"
        ) from error
