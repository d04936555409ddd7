"""Errors that cross Ray: what a worker raised on purpose is raised again as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ray.exceptions import RayTaskError
from ray.train import TrainingFailedError

from gemix.errors import GemixError


@contextlib.contextmanager
def unwrapped() -> Iterator[None]:
    """Turns a task's or a training worker's failure back into the `GemixError` behind it."""
    try:
        yield
    except (RayTaskError, TrainingFailedError) as error:
        failures = getattr(error, "worker_failures", {0: error})
        for failure in failures.values():
            # a task's failure keeps the exception as `cause`, a training worker's as `_base_exc`
            cause = getattr(failure, "cause", None) or getattr(failure, "_base_exc", failure)
            if isinstance(cause, GemixError):
                raise cause from error
        raise
