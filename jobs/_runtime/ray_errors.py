"""Find the errors of gemix, and lost processes, inside the exceptions of Ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ray.exceptions import (
    ActorDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.train import TrainingFailedError

from gemix.core.errors import GemixError, WorkerLostError

_LOST = (ActorDiedError, NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError)


def find_user_error(error: BaseException | None) -> GemixError | None:
    """Return the error of gemix inside what Ray raised, if there is one."""
    return next((e for e in _chain(error) if isinstance(e, GemixError)), None)


def find_worker_user_error(failures: Mapping[int, BaseException]) -> GemixError | None:
    """Return the first error of gemix among those of Ray Train's workers, by rank."""
    return next(filter(None, map(find_user_error, failures.values())), None)


def find_lost_process(error: BaseException | None) -> BaseException | None:
    """Return the error by which Ray says that a process or node died, if there is one."""
    return next((e for e in _chain(error) if isinstance(e, _LOST) or _failed_start(e)), None)


def worker_lost(lost: BaseException, what: str, remedy: str) -> WorkerLostError:
    """Return the error of gemix for a lost process.

    Args:
        what: what was lost, how often: "train-gan: a worker died 3 times".
        remedy: what helps.
    """
    low = "running low on memory" in str(lost) or isinstance(lost, OutOfMemoryError)
    return WorkerLostError(f"{what}{' (the node ran low on memory)' if low else ''}; {remedy}")


def _failed_start(error: BaseException) -> bool:
    # of ray.train.v2._internal.exceptions; a worker died while its group was set up
    return type(error).__name__ == "WorkerGroupStartupFailedError"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and all those inside it."""
    if error is None:
        return
    yield error
    inner = [error.__cause__]
    if isinstance(error, RayTaskError):
        inner.append(error.cause)
    if isinstance(error, TrainingFailedError):
        inner.append(getattr(error, "controller_failure", None))
        inner += getattr(error, "worker_failures", {}).values()
    # Ray Train keeps a worker's error in wrappers without public names
    inner.append(getattr(error, "_base_exc", None))
    inner.append(getattr(error, "health_check_failure", None))
    for one in inner:
        if isinstance(one, BaseException) and one is not error:
            yield from _chain(one)
