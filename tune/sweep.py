"""Run a sweep with Ray Tune: as many trials at a time as the cluster holds."""

from __future__ import annotations

import dataclasses
import logging
import os
import uuid
from typing import Any

import ray
from ray import tune as ray_tune

from gemix.config import ComputeConfig, PipelineConfig
from gemix.core.errors import StoreError
from gemix.core.stop import STOP
from gemix.data.shards.seal import sealed
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.sweep.opening import Sweep, open_sweep
from gemix.steps.sweep.trial import steps_of
from jobs._runtime.ray_cluster import connect, describe_resources, worker_resources
from jobs._runtime.ray_wait import resource_notice
from tune.objective import train_trial
from tune.searcher import EndOfSweep, StudyScheduler, StudySearcher

log = logging.getLogger("gemix.sweep")

_TUNE = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # gemix's own ends a sweep, see gemix.core.stop
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the database has what they would write
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # nobody reads Tune's snapshots
    "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0 it prints nothing beside our log
}


def run_sweep(config: PipelineConfig, workspace: Workspace, *, overwrite: bool = False) -> Sweep:
    """Run the trials that are left; return the sweep.

    Raises:
        GemixError: as :func:`gemix.steps.sweep.opening.open_sweep` raises it; if trial after trial
            fails; if the database stays away.
        Stopped: after Ctrl-C or SIGTERM; the running trials are queued again.
    """
    with sealed("test"):
        sweep = open_sweep(config, workspace, overwrite)
        compute = dataclasses.replace(config.compute, workers=1)
        connect()
        resources = worker_resources(compute)
        log.info("%s a trial", describe_resources(1, resources))
        try:
            if not sweep.study.is_exhausted:
                _fit(sweep, compute, resources)
        except StoreError:
            raise  # the next process closes what it finds running
        except BaseException:
            sweep.study.interrupt()
            raise
        return sweep


def _fit(sweep: Sweep, compute: ComputeConfig, resources: dict[str, float]) -> None:
    for name, value in _TUNE.items():
        os.environ.setdefault(name, value)
    # it would miss what those loggers write
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    study, total = sweep.study, steps_of(sweep.config)

    def describe(params: Any) -> dict[str, Any]:
        settings, method = sweep.settings(dict(params))
        return {"settings": settings, "method": method}

    searcher = StudySearcher(study, total, describe, lambda: _limit(sweep, resources))
    trainable = ray_tune.with_parameters(
        train_trial,
        config=sweep.config.to_mapping(),
        workdir=sweep.workspace.workdir,
        training=sweep.training,
        validation=sweep.validation,
    )
    store = Store(sweep.workspace.ray)
    tuner = ray_tune.Tuner(
        ray_tune.with_resources(trainable, resources),
        tune_config=ray_tune.TuneConfig(
            search_alg=searcher,
            scheduler=StudyScheduler(searcher, study, total, len(sweep.validation.classes)),
            num_samples=-1,  # the study knows how many
            reuse_actors=True,
        ),
        run_config=ray_tune.RunConfig(
            # of a finished name Tune would read the old snapshot
            name=f"sweep-{uuid.uuid4().hex[:8]}",
            storage_path=store.root,
            storage_filesystem=None if store.is_local else store.filesystem,
            stop=EndOfSweep(searcher),
            failure_config=ray_tune.FailureConfig(max_failures=compute.max_failures),
            verbose=0,
        ),
    )
    with STOP.deferred(), resource_notice(log, 1, resources, lambda: searcher.has_results):
        tuner.fit()
        if searcher.failure is not None:
            raise searcher.failure


def _limit(sweep: Sweep, resources: dict[str, float]) -> int:
    """Return how many trials may run at once: as many as the cluster holds now, 1 at least."""
    has = ray.cluster_resources()
    holds = min(int(has.get(name, 0) / each) for name, each in resources.items())
    return max(1, min(holds, sweep.config.sweep.concurrent or holds))
