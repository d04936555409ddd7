"""Library work spread over a cluster: :class:`gemix.data.map_fn.MapFn` by Ray Data."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import ray.data

from gemix.core.errors import GemixError
from gemix.core.progress import Progress
from jobs._runtime.ray_cluster import connect


class RayMap:
    """Ray Data tasks of one core each; only what the function returns comes back.

    Ray is started when the first work comes.

    Args:
        title: of the job, for progress reports.
    """

    def __init__(self, title: str):
        self.title = title

    def __call__(
        self, function: Callable[[Any], Any], inputs: Sequence[Any], what: str
    ) -> Iterator[Any]:
        """See :class:`gemix.data.map_fn.MapFn`.

        Inputs and results travel as bytes, since Arrow has no column type for them.
        """

        def work(row: dict[str, Any]) -> dict[str, Any]:
            cv2.setNumThreads(1)  # Ray keeps OpenMP to the task's core, and knows no OpenCV
            try:
                result = function(pickle.loads(row["input"]))
            except GemixError as error:
                result = error  # Ray would wrap it beyond recognition
            return {"number": row["number"], "result": pickle.dumps(result)}

        count, early, wanted = len(inputs), dict[int, Any](), 0
        if not count:
            return
        connect()
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # that it shows no bars
        rows = [{"number": i, "input": pickle.dumps(one)} for i, one in enumerate(inputs)]
        done = ray.data.from_items(rows, override_num_blocks=count).map(work)
        # Ray would hold cores back for other steps, of which there are none: of two, one then idles
        # for a while after each task (tasks of 1 s took half as long again, of 0.25 s two thirds)
        done.context.op_resource_reservation_enabled = False
        del rows  # they are Ray's now
        with Progress(self.title, count, what) as progress:
            for row in done.iter_rows():
                result = pickle.loads(row["result"])
                if isinstance(result, GemixError):
                    raise result
                progress.update()
                early[row["number"]] = result
                while wanted in early:
                    yield early.pop(wanted)
                    wanted += 1
