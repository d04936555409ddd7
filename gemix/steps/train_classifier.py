"""Train classifiers: on real images, and on real and synthetic ones, once for each seed.

One worker group runs all trainings, one after another, and skips finished ones: a run that was
stopped resumes with the classifier that it was training.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gemix.classifier.bundle import MODEL
from gemix.classifier.decision.decision import check_rule
from gemix.classifier.train import check_sets
from gemix.config import PipelineConfig
from gemix.data.leakage.provenance import Provenance, write_provenance
from gemix.data.prepare.encoded_scan import preparation_settings
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.evaluation.classification.normal_class import normal_class
from gemix.io.results import CLASSIFIERS, ONLY, REAL
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.runtime.classifier_training import check_training, repetitions, train_into
from gemix.steps.runtime.executor import Executor, LocalExecutor, WorkerContext
from gemix.steps.runtime.outputs import open_step
from gemix.steps.runtime.overlap import enforce_no_overlap, real_splits
from gemix.steps.runtime.training_sets import synthetic_sets, without_passed_audit
from gemix.tracking import mlflow_run as tracking

log = logging.getLogger("gemix.train-classifier")


def train_classifiers(
    config: PipelineConfig,
    workspace: Workspace,
    *,
    methods: Sequence[str] | None = None,
    synthetic_only: bool = False,
    executor: Executor | None = None,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Train on real images, and on real + synthetic images of each method.

    Args:
        methods: of the synthetic sets to use; None for those of ``config.synthesis.methods`` that
            are finished.
        synthetic_only: whether to train on the synthetic images of each method alone too, to be
            tested on real ones as the others are (TSTR; Esteban et al., 2017). Real
            validation images choose their epoch too, and they take as many steps.

    Returns:
        What ``classifiers.json`` lists: name, method, seed and validation scores of each.

    Raises:
        DataError: for a named set that is not finished, sets that do not fit together, validation
            images that cannot support ``decision.rule``, or, unless
            ``data.allow_overlap`` is set, images or patients that are both learned and held out.
        ConfigError: for a model that cannot be built, or a batch that cannot be shared out.
    """
    real = Manifest.load(Store(workspace.data))
    check_training(
        config.classifier, real, workers=config.compute.ranks, normal=config.data.normal_class
    )
    sets = synthetic_sets(config, workspace, methods, log)
    arms = _training_sets(workspace, sets, synthetic_only)
    generators = [
        Provenance(Store(url), f"the generator of the {method} images")
        for method, url in sets.items()
    ]
    learned, val, test = real_splits(workspace, "train", "val", "test")
    pairs = [*itertools.product([learned, *generators], [val, test]), (val, test)]
    overlap = enforce_no_overlap("train-classifier", config, pairs)
    held_out = read_images([workspace.data], "val")
    normal = normal_class(real.classes, config.data.normal_class)
    check_rule(config.decision, held_out.labels, held_out.groups, normal)
    unaudited = without_passed_audit(config, workspace, sets, log)
    executor = executor or LocalExecutor()
    executor.require(config.compute)
    store = open_step(workspace.classifiers, CLASSIFIERS, config, overwrite)
    write_provenance(store, [learned, val], generators)  # val chooses the epoch
    with tracking.start_run(config, workspace.workdir, "train-classifier") as run:
        run.set_tags(overlap.tags | {f"gemix.audit.{name}": why for name, why in unaudited.items()})
        for method, urls in arms.items():
            run.log_dataset(Manifest.load(Store(urls[-1])).digest, method, "training")
        settings = {
            "config": config.to_mapping(),
            "workspace": workspace.workdir,
            "arms": arms,
            "real_images": real.images("train"),
            "preprocessing": preparation_settings(real),
            "run": run,
        }
        executor.train("train-classifier", _train_worker, settings, config.compute, workspace.ray)
        names = [
            classifier_name(method, training.seed)
            for method in arms
            for training in repetitions(config.classifier, real.images("train"))
        ]
        rows = [_describe(workspace, name) for name in names]
        run.log_metrics({f"{row['name']}/best_val_macro_f2": row["val_macro_f2"] for row in rows})
        store.write_json(CLASSIFIERS, rows)
    return rows


def classifier_name(method: str, seed: int) -> str:
    """Return the name of a classifier's directory below ``workspace.classifiers``."""
    return f"{method}-seed{seed}"


def _training_sets(
    workspace: Workspace, synthetic: Mapping[str, str], synthetic_only: bool
) -> dict[str, list[str]]:
    """Return the shard sets that each method of training uses."""
    sets = {REAL: [workspace.data]}
    sets |= {method: [workspace.data, url] for method, url in synthetic.items()}
    if synthetic_only:
        sets |= {f"{method}{ONLY}": [url] for method, url in synthetic.items()}
    return sets


def _train_worker(settings: dict[str, Any], context: WorkerContext) -> None:
    """Run one worker through every training that is not finished."""
    config = PipelineConfig.from_mapping(settings["config"])
    workspace = Workspace(settings["workspace"])
    torch.set_num_threads(config.compute.cpus_per_worker)
    memory = config.data.memory_bytes(context.image_memory)
    validation, test = (
        read_images([workspace.data], split, memory_bytes=memory / 4) for split in ("val", "test")
    )
    training = None
    for method, urls in settings["arms"].items():
        del training  # before there are two
        training = read_images(urls, "train", test.classes, memory_bytes=memory / 2)
        check_sets(training, test, allow_overlap=config.data.allow_overlap)
        for repetition in repetitions(config.classifier, settings["real_images"]):
            name = classifier_name(method, repetition.seed)
            train_into(
                Store(f"{workspace.classifiers}/{name}"),
                training,
                validation,
                repetition,
                name=name,
                method=method,
                step="train-classifier",
                run=settings["run"],
                normal=config.data.normal_class,
                real_images=settings["real_images"] if urls[0] == workspace.data else 0,
                preprocessing=settings["preprocessing"],
                allow_overlap=config.data.allow_overlap,
                decision=config.decision,
            )


def _describe(workspace: Workspace, name: str) -> dict[str, Any]:
    """Return a trained classifier's row of ``classifiers.json``."""
    found = Store(f"{workspace.classifiers}/{name}").read_json(MODEL)
    return {"name": name, "method": found["method"], "seed": found["seed"], **found["validation"]}
