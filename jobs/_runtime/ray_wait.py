"""Tell what a job waits for while the cluster has no room for it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ray

from jobs._runtime.ray_cluster import describe_resources, is_cluster

SECONDS = 30.0


@contextlib.contextmanager
def resource_notice(
    log: logging.Logger,
    workers: int,
    resources: dict[str, float],
    started: Callable[[], bool],
    seconds: float | None = None,
) -> Iterator[None]:
    """Log what is waited for, until `started` returns True or the block ends.

    On a single machine nothing is logged: what it has not is refused before.

    Args:
        seconds: between records; by default 30.
    """
    if not is_cluster():
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(seconds or SECONDS) and not started():
            log.info("%s", _describe(workers, resources))

    thread = threading.Thread(target=watch, name="resource-notice", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def notice_until_first(
    results: Iterator[Any], title: str, resources: dict[str, float]
) -> Iterator[Any]:
    """Yield results; log what is waited for while no node of the cluster can compute the first."""
    log = logging.getLogger(f"gemix.{title}")
    arrived = threading.Event()
    with resource_notice(log, 1, resources, lambda: arrived.is_set() or not _lacks(1, resources)):
        for result in results:
            arrived.set()
            yield result


def _lacks(workers: int, resources: dict[str, float]) -> bool:
    has = ray.cluster_resources()
    return any(each * workers > has.get(name, 0) for name, each in resources.items())


def _describe(workers: int, resources: dict[str, float]) -> str:
    has, free = ray.cluster_resources(), ray.available_resources()
    nodes = ", ".join(f"{has.get(n, 0):g} {n}s ({free.get(n, 0):g} free)" for n in resources)
    text = f"waiting for {describe_resources(workers, resources)}; the cluster has {nodes}"
    if _lacks(workers, resources):
        text += "; without an autoscaler, add nodes or ask for less (compute.*)"
    return text
