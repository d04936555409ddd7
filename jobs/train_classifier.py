"""Trains the classifiers with Ray Train: each method's training set, once a seed.

One worker group goes through all trainings, one after the other; those that are finished are
skipped, so a run that was stopped goes on with the classifier that it was at.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from gemix.classifier.bundle import MODEL, Classifier, is_finished
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.distributed import local_indices
from gemix.classifier.models import check_name
from gemix.classifier.train import check_sets, train
from gemix.config import PipelineConfig
from gemix.core.distributed import Workers
from gemix.core.errors import DataError
from gemix.data.image_set import ImageSet
from gemix.data.leakage.provenance import Provenance, write_provenance
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.shards.reading import read_images
from gemix.evaluation.classification.rates import normal_class, score
from gemix.io.storage import Store
from gemix.io.workspace import Layout
from gemix.steps.outputs import open_step
from gemix.steps.overlap import enforce_no_overlap, real_splits
from gemix.tracking import mlflow_run as tracking
from gemix.tracking.mlflow_run import Run
from jobs._runtime.command import Command, Request
from jobs._runtime.ray_cluster import connect, worker_resources
from jobs._runtime.ray_train import fit

CLASSIFIERS = "classifiers.json"
REAL = "real"
_SECONDS_BETWEEN_LINES = 10.0


def train_classifiers(
    config: PipelineConfig,
    layout: Layout,
    *,
    methods: Sequence[str] | None = None,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Trains on real images, and on real + synthetic images of each method.

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
    check_name(config.classifier.model)
    local_indices(Workers(0, config.compute.ranks), config.classifier.batch)
    real = Manifest.load(Store(layout.data))
    arms = _training_sets(config, layout, methods)
    generators = [
        Provenance(Store(layout.synthetic(method)), f"the generator of the {method} images")
        for method in arms
        if method != REAL
    ]
    learned, val, test = real_splits(layout, "train", "val", "test")
    pairs = [*itertools.product([learned, *generators], [val, test]), (val, test)]
    overlap = enforce_no_overlap("train-classifier", config, pairs)
    connect()
    resources = worker_resources(config.compute)
    store = open_step(layout.classifiers, CLASSIFIERS, config, overwrite)
    write_provenance(store, [learned, val], generators)  # val chooses the epoch
    with tracking.start_run(config, layout.workdir, "train-classifier") as run:
        run.set_tags(overlap.tags)
        for method, urls in arms.items():
            run.log_dataset(Manifest.load(Store(urls[-1])).digest, method, "training")
        settings = {
            "config": config.to_mapping(),
            "layout": layout.workdir,
            "arms": arms,
            "real_images": real.images("train"),
            "run": run,
        }
        fit("train-classifier", _train_worker, settings, config.compute, resources, layout.ray)
        names = [
            classifier_name(method, training.seed)
            for method in arms
            for training in _trainings(config, real.images("train"))
        ]
        rows = [_describe(layout, name) for name in names]
        run.log_metrics({f"{row['name']}/best_val_macro_f2": row["val_macro_f2"] for row in rows})
        store.write_json(CLASSIFIERS, rows)
    return rows


def classifier_name(method: str, seed: int) -> str:
    """Name of a classifier's directory below ``layout.classifiers``."""
    return f"{method}-seed{seed}"


def _training_sets(
    config: PipelineConfig, layout: Layout, methods: Sequence[str] | None
) -> dict[str, list[str]]:
    """The shard sets of each method: the real one, and for all but "real" a synthetic one."""
    sets = {REAL: [layout.data]}
    for method in methods or config.synthesis.methods:
        url = layout.synthetic(method)
        if Store(url).exists(MANIFEST):
            sets[method] = [layout.data, url]
        elif methods:
            raise DataError(f"{url}: no finished synthetic set; run gemix synthesize first")
        else:
            print(f"train-classifier: no {method} images in {url}, left out", flush=True)
    return sets


def _trainings(config: PipelineConfig, real_images: int) -> list[ClassifierConfig]:
    """The settings of each repetition; epochs are as long as the real training set."""
    settings = config.classifier
    return [
        dataclasses.replace(
            settings,
            seed=settings.seed + index,
            epoch_images=settings.epoch_images or real_images,
        )
        for index in range(settings.seeds)
    ]


def _train_worker(settings: dict[str, Any]) -> None:
    """One worker: every training that is not finished, one after the other."""
    config = PipelineConfig.from_mapping(settings["config"])
    layout = Layout(settings["layout"])
    torch.set_num_threads(config.compute.cpus_per_worker)
    validation, test = (read_images([layout.data], split) for split in ("val", "test"))
    for method, urls in settings["arms"].items():
        training = read_images(urls, "train")
        check_sets(training, test, allow_overlap=config.data.allow_overlap)
        for repetition in _trainings(config, settings["real_images"]):
            _train_one(config, repetition, layout, method, training, validation, settings["run"])


def _train_one(
    config: PipelineConfig,
    repetition: ClassifierConfig,
    layout: Layout,
    method: str,
    training: ImageSet,
    validation: ImageSet,
    run: Run,
) -> None:
    """One classifier into its directory, unless it is there already."""
    name = classifier_name(method, repetition.seed)
    store = Store(f"{layout.classifiers}/{name}")
    made_of = {"method": method, "config": repetition, "training_digest": training.digest}
    if is_finished(store, **made_of):
        print(f"train-classifier: {name} is finished already", flush=True)
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
    """Tells MLflow of every epoch, and the reader of some."""

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
            print(
                f"train-classifier: {self.name} epoch {epoch} of {self.epochs}, "
                f"loss {row['train_loss']:.3f}, val macro-F2 {row['val_macro_f2']:.3f}, "
                f"{now - self.began:.0f} s",
                flush=True,
            )


def _describe(layout: Layout, name: str) -> dict[str, Any]:
    """A trained classifier's row in ``classifiers.json``."""
    found = Store(f"{layout.classifiers}/{name}").read_json(MODEL)
    return {"name": name, "method": found["method"], "seed": found["seed"], **found["validation"]}


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--methods",
        type=lambda text: text.split(","),
        help="synthetic sets to use beside the real images alone, separated by commas "
        "(default: those of synthesis.methods that are finished)",
    )


def _run(request: Request) -> None:
    rows = train_classifiers(
        request.config,
        request.layout,
        methods=request.options.methods,
        overwrite=request.overwrite,
    )
    print(f"train-classifier: {len(rows)} classifiers in {request.layout.classifiers}")


COMMAND = Command(
    name="train-classifier",
    summary="Trains classifiers on real images, and on real + synthetic images of each method.",
    reads="<workdir>/data, <workdir>/synthetic/<method>",
    writes="<workdir>/classifiers/<method>-seed<k>: model.safetensors, model.json",
    costs="(1 + methods) x seeds x epochs passes over as many images as there are real ones: two "
    "minutes for demo on 2 CPU cores; a stopped run goes on with the classifier it was at",
    run=_run,
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
