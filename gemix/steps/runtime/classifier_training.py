"""Train one classifier into its directory, as the steps that train classifiers do."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

import gemix
from gemix.classifier.bundle import Classifier, is_finished
from gemix.classifier.checkpoint import Checkpoints
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.decision.config import DecisionConfig
from gemix.classifier.decision.decision import UNFITTED, Decision
from gemix.classifier.distributed import batch_parts
from gemix.classifier.models import check_model, check_name, weights_sha256
from gemix.classifier.optimizer import check_optimizer
from gemix.classifier.train import train
from gemix.core.distributed import Workers
from gemix.data.image_set import ImageSet
from gemix.data.shards.manifest import Manifest
from gemix.evaluation.classification.normal_class import normal_class
from gemix.evaluation.classification.rates import confusion_matrix, score
from gemix.io.resume_cache import digest_of
from gemix.io.storage import Store
from gemix.tracking.mlflow_run import Run

_SECONDS_BETWEEN_LINES = 10.0


def check_training(
    config: ClassifierConfig, real: Manifest, *, workers: int, normal: str | None
) -> None:
    """Check, before workers start, that classifiers can be trained on these images.

    Args:
        real: manifest of the real images.
        workers: how many share a batch.
        normal: ``data.normal_class``.

    Raises:
        ConfigError: for a model that cannot be built or does not go with the augmentation, an
            optimizer that timm does not have, or a batch that cannot be shared out.
        DataError: for a normal class that the data do not have.
    """
    batch_parts(Workers(0, workers), config.batch, config.accumulate)
    check_name(config.model)
    check_optimizer(config.optimizer)
    check_model(
        config.model,
        channels=real.channels,
        resolution=real.resolution,
        augment=config.augment,
    )
    normal_class(real.classes, normal)


def repetitions(config: ClassifierConfig, real_images: int) -> list[ClassifierConfig]:
    """Return the settings of each repetition; epochs are as long as the real training set."""
    return [
        dataclasses.replace(
            config,
            seed=config.seed + index,
            epoch_images=config.epoch_images or real_images,
        )
        for index in range(config.seeds)
    ]


def train_into(
    store: Store,
    training: ImageSet,
    validation: ImageSet,
    config: ClassifierConfig,
    *,
    name: str,
    method: str,
    step: str,
    run: Run,
    normal: str | None,
    real_images: int | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    keep: Literal["best", "last"] = "best",
    allow_overlap: bool = False,
    decision: DecisionConfig | None = None,
) -> None:
    """Train a classifier into its directory, unless it is there already; called by every worker.

    Args:
        name, method: of the classifier, in logs and in its directory.
        step: name of the step, for the log.
        normal: ``data.normal_class``.
        real_images: how many of `training`, its first ones, are real; by default all.
        preprocessing: the settings that turned scans into such images, where they are on record.
        keep: which epoch is kept; see :func:`gemix.classifier.train.train`.
        decision: how its decision is fitted to the validation images, again where a classifier
            that is there already was fitted otherwise; None fits none.
    """
    log = logging.getLogger(f"gemix.{step}")
    made_of = {"method": method, "config": config, "training_digest": training.digest}
    first = Workers.from_process_group().rank == 0
    normal_index = normal_class(training.classes, normal)

    def fit(logits: np.ndarray) -> Decision:
        if decision is None:
            return UNFITTED
        return Decision.fit(logits, validation.labels, validation.groups, normal_index, decision)

    if is_finished(store, **made_of):
        log.info("%s is finished already", name)
        if first and decision is not None:
            _fit_again(store, validation, decision, normal_index, fit)
        return
    checkpoints = Checkpoints(
        store,
        digest_of(
            gemix.__version__,
            config.to_mapping() | {"weights": weights_sha256(config.weights)},
            training.digest,
            validation.digest,
            real_images,
            normal,
            keep,
        ),
    )
    trained = train(
        training,
        validation,
        config,
        lambda labels, found: score(labels, found, len(training.classes), normal_index),
        real_images=real_images,
        keep=keep,
        allow_overlap=allow_overlap,
        on_epoch=_EpochLog(name, config.epochs, run, log) if first else lambda row: None,
        checkpoints=checkpoints,
    )
    if first:
        if len(trained.history) < config.epochs:
            log.info(
                "%s stopped after epoch %d of %d; epoch %d is kept",
                name,
                len(trained.history),
                config.epochs,
                trained.kept["epoch"],
            )
        confusion = confusion_matrix(validation.labels, trained.predicted, len(training.classes))
        Classifier.of(
            trained,
            classes=training.classes,
            **made_of,
            validation_confusion=confusion,
            preprocessing=preprocessing,
            decision=fit(trained.validation_logits),
        ).save(store)
        checkpoints.remove()


def _fit_again(
    store: Store,
    validation: ImageSet,
    config: DecisionConfig,
    normal: int | None,
    fit: Callable[[np.ndarray], Decision],
) -> None:
    """Fit the decision of a finished classifier, unless it was fitted by these settings.

    Args:
        normal: index of the healthy class, which the threshold is for; None if there is none.
    """
    classifier = Classifier.load(store)
    if (classifier.decision.config, classifier.decision.normal) != (config, normal):
        decision = fit(classifier.logits(validation.images))
        dataclasses.replace(classifier, decision=decision).save(store)


class _EpochLog:
    """Log every epoch to MLflow, and some to the log."""

    def __init__(self, name: str, epochs: int, run: Run, log: logging.Logger):
        self.name, self.epochs, self.run, self.log = name, epochs, run, log
        self.began = self.said = time.monotonic()

    def __call__(self, row: dict[str, float]) -> None:
        epoch = row["epoch"]
        values = {f"{self.name}/{key}": value for key, value in row.items() if key != "epoch"}
        self.run.log_metrics(values, step=epoch)
        now = time.monotonic()
        if now - self.said >= _SECONDS_BETWEEN_LINES or epoch == self.epochs:
            self.said = now
            self.log.info(
                "%s epoch %d of %d, loss %.3f, val macro-F2 %.3f, %.0f s",
                self.name,
                epoch,
                self.epochs,
                row["train_loss"],
                row["val_macro_f2"],
                now - self.began,
            )
