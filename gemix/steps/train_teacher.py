"""Train the teachers: classifiers of the real training images that judge synthetic ones.

They learn from the training split alone: what they say about a synthetic image owes nothing to the
images that classifiers are chosen or tested on. Several seeds show what is one network's taste.
"""

from __future__ import annotations

import itertools
import logging
from typing import Any

import numpy as np
import torch

from gemix.classifier.bundle import Classifier
from gemix.config import PipelineConfig
from gemix.data.leakage.provenance import write_provenance
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.evaluation.label_fidelity.measure import label_fidelity
from gemix.io.records import write_record
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.runtime.classifier_training import check_training, repetitions, train_into
from gemix.steps.runtime.executor import Executor, LocalExecutor, WorkerContext
from gemix.steps.runtime.outputs import open_step
from gemix.steps.runtime.overlap import enforce_no_overlap, real_splits
from gemix.synthesis.teacher import TEACHER, TeacherRow
from gemix.tracking import mlflow_run as tracking

log = logging.getLogger("gemix.train-teacher")


def train_teachers(
    config: PipelineConfig,
    workspace: Workspace,
    *,
    executor: Executor | None = None,
    overwrite: bool = False,
) -> list[TeacherRow]:
    """Train ``config.teacher.seeds`` classifiers on the real training images.

    The last epoch is kept, so that validation images choose nothing. Their label fidelity on these
    is the ceiling of what they can say of synthetic images.

    Raises:
        DataError: if training and held-out images overlap, unless ``data.allow_overlap`` is set.
        ConfigError: for a model that cannot be built, or a batch that cannot be shared out.
    """
    settings = config.teacher
    real = Manifest.load(Store(workspace.data))
    check_training(settings, real, workers=config.compute.ranks, normal=config.data.normal_class)
    learned, val, test = real_splits(workspace, "train", "val", "test")
    overlap = enforce_no_overlap("train-teacher", config, itertools.product([learned], [val, test]))
    executor = executor or LocalExecutor()
    executor.require(config.compute)
    store = open_step(workspace.teacher, TEACHER, config, overwrite)
    write_provenance(store, [learned], [])
    with tracking.start_run(config, workspace.workdir, "train-teacher") as run:
        run.set_tags(overlap.tags)
        run.log_dataset(real.content_digest("train"), "teacher", "training")
        work = {"config": config.to_mapping(), "workspace": workspace.workdir, "run": run}
        executor.train("train-teacher", _train_worker, work, config.compute, workspace.ray)
        validation = read_images([workspace.data], "val")
        rows = []
        for training in repetitions(settings, real.images("train")):
            teacher = Classifier.load(store / _name(training.seed))
            seen = teacher.predict(validation.images)
            asked = np.eye(len(real.classes), dtype=np.float32)[validation.labels]
            row = TeacherRow(
                name=_name(training.seed),
                seed=training.seed,
                checksum=teacher.checksum,
                real=label_fidelity(asked, seen),
            )
            rows.append(row)
            log.info("%s: right on %.1f%% of %d validation images", row.name, *_shown(row))
        write_record(store, TEACHER, rows)
    return rows


def _name(seed: int) -> str:
    return f"seed{seed}"


def _shown(row: TeacherRow) -> tuple[float, int]:
    agreement = row.real.agreement
    return 100 * (agreement.value or 0.0), agreement.images


def _train_worker(settings: dict[str, Any], context: WorkerContext) -> None:
    """Run one worker through every teacher that is not finished."""
    config = PipelineConfig.from_mapping(settings["config"])
    workspace = Workspace(settings["workspace"])
    torch.set_num_threads(config.compute.cpus_per_worker)
    memory = config.data.memory_bytes(context.image_memory)
    training, validation = (
        read_images([workspace.data], name, memory_bytes=memory / 2) for name in ("train", "val")
    )
    for repetition in repetitions(config.teacher, len(training)):
        name = _name(repetition.seed)
        train_into(
            Store(workspace.teacher) / name,
            training,
            validation,
            repetition,
            name=f"teacher {name}",
            method="teacher",
            step="train-teacher",
            run=settings["run"],
            normal=config.data.normal_class,
            keep="last",
            allow_overlap=config.data.allow_overlap,
        )
