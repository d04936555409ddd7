"""A trial as Ray Tune runs it: one task, which reports every epoch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ray import tune as ray_tune

from gemix.config import PipelineConfig
from gemix.core.errors import TransientError
from gemix.data.image_set import ImageSet
from gemix.data.shards.seal import sealed
from gemix.io.workspace import Workspace
from gemix.steps.sweep.trial import Report, run_trial
from gemix.sweep.objective import Scores

STEP, METRIC, ERROR, SEED_SCORES = "step", "macro_f2", "error", "seed_scores"
"""Keys of a result. The step is a counter of our own: Tune's begins again after a restart."""


def train_trial(
    trial: dict[str, Any],
    *,
    config: Mapping[str, Any],
    workdir: str,
    training: ImageSet,
    validation: ImageSet,
) -> None:
    """Run one trial and report its epochs to Ray Tune.

    An outage is raised, and Tune starts the trial again; any other error is reported, since it
    would repeat itself.

    Args:
        trial: its `settings` and its `method`.
        config, workdir: of the sweep.
        training, validation: real images, one copy a node.
    """
    try:
        with sealed("test"):
            run_trial(
                PipelineConfig.from_mapping(config),
                Workspace(workdir),
                trial["settings"],
                trial["method"],
                training,
                validation,
                lambda report: ray_tune.report(result_of(report)),
            )
    except TransientError:
        raise
    except Exception as error:
        text = str(error) or type(error).__name__
        ray_tune.report({STEP: 0, METRIC: math.nan, ERROR: text})


def result_of(report: Report) -> dict[str, Any]:
    """Return what Tune's scheduler and searcher read."""
    seeds = [dataclasses.asdict(one) for one in report.seed_scores]
    return {STEP: report.step, SEED_SCORES: seeds, **dataclasses.asdict(report.scores)}


def scores_of_result(result: Mapping[str, Any]) -> Scores:
    """Return the scores in a result."""
    return Scores(**{field.name: result[field.name] for field in dataclasses.fields(Scores)})
