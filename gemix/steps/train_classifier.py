"""Train classifiers: on real images, and on real and synthetic ones, once for each seed.

One worker group runs all trainings, one after another, and skips finished ones: a run that was
stopped resumes with the classifier that it was training.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from collections.abc import Sequence
from typing import Any

import torch

from gemix.classifier.bundle import MODEL, Classifier, is_finished
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.distributed import batch_parts
from gemix.classifier.models import check_model, check_name
from gemix.classifier.train import check_sets, train
from gemix.config import PipelineConfig
from gemix.core.distributed import Workers
from gemix.core.errors import DataError
from gemix.data.image_set import ImageSet
from gemix.data.leakage.provenance import Provenance, write_provenance
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.shards.reading import read_images
from gemix.evaluation.classification.normal_class import normal_class
from gemix.evaluation.classification.rates import score
from gemix.io.results import CLASSIFIERS, REAL
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.runtime.executor import Executor, LocalExecutor, WorkerContext
from gemix.steps.runtime.outputs import open_step
from gemix.steps.runtime.overlap import enforce_no_overlap, real_splits
from gemix.tracking import mlflow_run as tracking
from gemix.tracking.mlflow_run import Run

log = logging.getLogger("gemix.train-classifier")

_SECONDS_BETWEEN_LINES = 10.0


def train_classifiers(
    config: PipelineConfig,
    workspace: Workspace,
    *,
    methods: Sequence[str] | None = None,
    executor: Executor | None = None,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Train on real images, and on real + synthetic images of each method.

    Args:
        methods: of the synthetic sets to use; None for those of ``config.synthesis.methods`` that
            are finished.

    Returns:
        What ``classifiers.json`` lists: name, method, seed and validation scores of each.

    Raises:
        DataError: for a named set that is not finished, sets that do not fit together, or, unless
            ``data.allow_overlap`` is set, images or patients that are both learned and held out.
        ConfigError: for a model that cannot be built, or a batch that cannot be shared out.
    """
    batch_parts(
        Workers(0, config.compute.ranks), config.classifier.batch, config.classifier.accumulate
    )
    check_name(config.classifier.model)
    real = Manifest.load(Store(workspace.data))
    check_model(config.classifier.model, channels=real.channels, resolution=real.resolution)
    normal_class(real.classes, config.data.normal_class)
    arms = _training_sets(config, workspace, methods)
    generators = [
        Provenance(Store(workspace.synthetic(method)), f"the generator of the {method} images")
        for method in arms
        if method != REAL
    ]
    learned, val, test = real_splits(workspace, "train", "val", "test")
    pairs = [*itertools.product([learned, *generators], [val, test]), (val, test)]
    overlap = enforce_no_overlap("train-classifier", config, pairs)
    executor = executor or LocalExecutor()
    executor.require(config.compute)
    store = open_step(workspace.classifiers, CLASSIFIERS, config, overwrite)
    write_provenance(store, [learned, val], generators)  # val chooses the epoch
    with tracking.start_run(config, workspace.workdir, "train-classifier") as run:
        run.set_tags(overlap.tags)
        for method, urls in arms.items():
            run.log_dataset(Manifest.load(Store(urls[-1])).digest, method, "training")
        settings = {
            "config": config.to_mapping(),
            "workspace": workspace.workdir,
            "arms": arms,
            "real_images": real.images("train"),
            "run": run,
        }
        executor.train("train-classifier", _train_worker, settings, config.compute, workspace.ray)
        names = [
            classifier_name(method, training.seed)
            for method in arms
            for training in _trainings(config, real.images("train"))
        ]
        rows = [_describe(workspace, name) for name in names]
        run.log_metrics({f"{row['name']}/best_val_macro_f2": row["val_macro_f2"] for row in rows})
        store.write_json(CLASSIFIERS, rows)
    return rows


def classifier_name(method: str, seed: int) -> str:
    """Return the name of a classifier's directory below ``workspace.classifiers``."""
    return f"{method}-seed{seed}"


def _training_sets(
    config: PipelineConfig, workspace: Workspace, methods: Sequence[str] | None
) -> dict[str, list[str]]:
    """Return the shard sets that each method trains on."""
    sets = {REAL: [workspace.data]}
    for method in methods or config.synthesis.methods:
        url = workspace.synthetic(method)
        if Store(url).exists(MANIFEST):
            sets[method] = [workspace.data, url]
        elif methods:
            raise DataError(f"{url}: no finished synthetic set; run gemix synthesize first")
        else:
            log.info("no %s images in %s, left out", method, url)
    return sets


def _trainings(config: PipelineConfig, real_images: int) -> list[ClassifierConfig]:
    """Return the settings of each repetition; epochs are as long as the real training set."""
    settings = config.classifier
    return [
        dataclasses.replace(
            settings,
            seed=settings.seed + index,
            epoch_images=settings.epoch_images or real_images,
        )
        for index in range(settings.seeds)
    ]


def _train_worker(settings: dict[str, Any], context: WorkerContext) -> None:
    """Run one worker through every training that is not finished."""
    del context
    config = PipelineConfig.from_mapping(settings["config"])
    workspace = Workspace(settings["workspace"])
    torch.set_num_threads(config.compute.cpus_per_worker)
    validation, test = (read_images([workspace.data], split) for split in ("val", "test"))
    for method, urls in settings["arms"].items():
        training = read_images(urls, "train")
        check_sets(training, test, allow_overlap=config.data.allow_overlap)
        for repetition in _trainings(config, settings["real_images"]):
            _train_one(config, repetition, workspace, method, training, validation, settings["run"])


def _train_one(
    config: PipelineConfig,
    repetition: ClassifierConfig,
    workspace: Workspace,
    method: str,
    training: ImageSet,
    validation: ImageSet,
    run: Run,
) -> None:
    """Train one classifier into its directory, unless it is there already."""
    name = classifier_name(method, repetition.seed)
    store = Store(f"{workspace.classifiers}/{name}")
    made_of = {"method": method, "config": repetition, "training_digest": training.digest}
    if is_finished(store, **made_of):
        log.info("%s is finished already", name)
        return
    first = Workers.from_process_group().rank == 0
    normal = normal_class(training.classes, config.data.normal_class)
    trained = train(
        training,
        validation,
        repetition,
        lambda labels, found: score(labels, found, len(training.classes), normal),
        allow_overlap=config.data.allow_overlap,
        on_epoch=_EpochLog(name, repetition.epochs, run) if first else lambda row: None,
    )
    if first:
        Classifier.of(trained, classes=training.classes, **made_of).save(store)


class _EpochLog:
    """Log every epoch to MLflow, and some to the log."""

    def __init__(self, name: str, epochs: int, run: Run):
        self.name, self.epochs, self.run = name, epochs, run
        self.began = self.said = time.monotonic()

    def __call__(self, row: dict[str, float]) -> None:
        epoch = row["epoch"]
        values = {f"{self.name}/{key}": value for key, value in row.items() if key != "epoch"}
        self.run.log_metrics(values, step=epoch)
        now = time.monotonic()
        if now - self.said >= _SECONDS_BETWEEN_LINES or epoch == self.epochs:
            self.said = now
            log.info(
                "%s epoch %d of %d, loss %.3f, val macro-F2 %.3f, %.0f s",
                self.name,
                epoch,
                self.epochs,
                row["train_loss"],
                row["val_macro_f2"],
                now - self.began,
            )


def _describe(workspace: Workspace, name: str) -> dict[str, Any]:
    """Return a trained classifier's row of ``classifiers.json``."""
    found = Store(f"{workspace.classifiers}/{name}").read_json(MODEL)
    return {"name": name, "method": found["method"], "seed": found["seed"], **found["validation"]}
