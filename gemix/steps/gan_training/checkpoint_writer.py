"""Write checkpoints in a thread, while the training goes on."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor

from gemix.core.errors import DiskFullError, StoreAccessError, StoreError
from gemix.gan.checkpoints.checkpoint import (
    StateCopy,
    TrainingSpec,
    checkpoints,
    save_checkpoint,
)
from gemix.gan.training.state import TrainingState
from gemix.io.storage import Store

# files that cannot be written: training goes on without them
WRITE_ERRORS = (OSError, DiskFullError, StoreError, StoreAccessError)


class CheckpointWriter:
    """Write one checkpoint at a time; where one cannot be written, warn and go on.

    Args:
        store: the directory of the checkpoints.
        logger: where warnings go.
    """

    def __init__(self, store: Store, spec: TrainingSpec, logger: logging.Logger):
        self.store, self.spec, self.logger = store, spec, logger
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: tuple[int, Future[str]] | None = None

    def submit(self, state: TrainingState) -> None:
        """Begin to write a state, when the one before is written; the caller may change it."""
        self.wait()
        copied = StateCopy(state)
        future = self._thread.submit(save_checkpoint, self.store, copied, self.spec)
        self._pending = state.step, future

    def wait(self) -> None:
        """Wait until nothing is being written, and say what could not be."""
        if self._pending is None:
            return
        (step, future), self._pending = self._pending, None
        try:
            future.result()
        except WRITE_ERRORS as error:
            self.warn(step, error)

    def warn(self, step: int, error: Exception) -> None:
        """Say that there is no checkpoint of a step, and what helps."""
        if isinstance(error, StoreError | StoreAccessError):
            self.logger.warning(
                "no checkpoint at step %d: %s. Training goes on and tries again with the next one",
                step,
                error,
            )
            return
        kept = checkpoints(self.store)
        self.logger.warning(
            "no checkpoint at step %d: %s. Training goes on; the last good one is %s. Make room "
            "in %s",
            step,
            error,
            kept[-1] if kept else "none",
            self.store.url,
        )
