"""Functions applied to many inputs with Ray Data.

Inputs and results travel as pickled bytes, since Arrow has no column type for them. Both come from
this program, never from a file.
"""

from __future__ import annotations

import functools
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import ray.data
from ray.data import ActorPoolStrategy, TaskPoolStrategy
from ray.exceptions import RayError

from gemix.core.errors import GemixError
from gemix.core.progress import Progress
from jobs._runtime.ray_errors import find_lost_process, worker_lost


def map_in_tasks(
    function: Callable[[Any], Any],
    inputs: Sequence[Any],
    *,
    title: str,
    unit: str,
    resources: dict[str, float],
) -> Iterator[Any]:
    """Yield results in the inputs' order; each call is a Ray task of the given ``CPU`` and ``GPU``.

    Raises:
        GemixError: that of the function, as it was raised there.
        WorkerLostError: if a process died more often than Ray starts it again.
    """
    if not inputs:
        return
    rows = _dataset(inputs).map(_task(function), **_arguments(resources))
    yield from _in_order(_results(rows), title, unit, [1] * len(inputs))


def map_in_actors(
    build: Callable[[], Callable[[Any], Any]],
    inputs: Sequence[Any],
    *,
    title: str,
    unit: str,
    resources: dict[str, float],
    actors: int,
    weights: Sequence[int],
) -> Iterator[Any]:
    """Yield results in the inputs' order; `build` runs once in each of at most `actors` actors."""
    if not inputs:
        return
    rows = _dataset(inputs).map(
        _Actor,
        fn_constructor_args=(build,),
        compute=ActorPoolStrategy(size=min(actors, len(inputs))),
        **_arguments(resources),
    )
    yield from _in_order(_results(rows), title, unit, weights)


def map_unordered(
    function: Callable[[Any], Any], inputs: Sequence[Any], concurrency: int
) -> Iterator[Any]:
    """Yield results as soon as they are there, from at most `concurrency` tasks at once.

    The tasks ask Ray for no CPU: the workers of the training beside them hold all there are, and
    they share theirs.
    """
    if not inputs:
        return
    rows = _dataset(inputs).map(
        _task(function), compute=TaskPoolStrategy(size=concurrency), num_cpus=0
    )
    for _, result in _results(rows):
        yield result


def _task(function: Callable[[Any], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Wrap a function to take and return rows; an error of gemix is a result."""

    def work(row: dict[str, Any]) -> dict[str, Any]:
        cv2.setNumThreads(1)  # Ray keeps OpenMP to the task's core, and knows no OpenCV
        try:
            result = function(pickle.loads(row["input"]))
        except GemixError as error:
            result = error  # Ray would wrap it beyond recognition
        return {"number": row["number"], "result": pickle.dumps(result)}

    return work


class _Actor:
    """Builds the function where it runs; an error of gemix in that is the result of every row."""

    def __init__(self, build: Callable[[], Callable[[Any], Any]]):
        try:
            self.work = _task(build())
        except GemixError as error:
            self.work = _task(functools.partial(_raise, error))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return self.work(row)


def _raise(error: GemixError, value: object) -> None:
    del value
    raise error


def _dataset(inputs: Sequence[Any]) -> ray.data.Dataset:
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it warns that it shows no bars
    rows = [{"number": i, "input": pickle.dumps(one)} for i, one in enumerate(inputs)]
    return ray.data.from_items(rows, override_num_blocks=len(rows))


def _arguments(resources: dict[str, float]) -> dict[str, Any]:
    return {"num_cpus": resources["CPU"], "num_gpus": resources.get("GPU")}


def _results(rows: ray.data.Dataset) -> Iterator[tuple[int, Any]]:
    # Ray would hold back cores for other operators, of which there are none: with two cores, one
    # idles for a while after each task (tasks of 1 s took 1.5 times as long, of 0.25 s 1.7 times)
    rows.context.op_resource_reservation_enabled = False
    try:
        for row in rows.iter_rows():
            result = pickle.loads(row["result"])
            if isinstance(result, GemixError):
                raise result
            yield row["number"], result
    except RayError as error:
        lost = find_lost_process(error)
        if lost is None:
            raise
        remedy = "run the same command again; where memory ran out, use fewer workers on a machine"
        raise worker_lost(lost, "a worker process or its node died", remedy) from error


def _in_order(
    results: Iterator[tuple[int, Any]], title: str, unit: str, weights: Sequence[int]
) -> Iterator[Any]:
    early: dict[int, Any] = {}
    wanted = 0
    with Progress(title, sum(weights), unit) as progress:
        for number, result in results:
            progress.update(weights[number])
            early[number] = result
            while wanted in early:
                yield early.pop(wanted)
                wanted += 1
