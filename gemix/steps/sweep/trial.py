"""One trial of a sweep: make its images, train a classifier for each seed, score on validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch

from gemix.classifier.config import ClassifierConfig
from gemix.classifier.models import weights_sha256
from gemix.classifier.train import rank_of_epoch, train
from gemix.config import PipelineConfig
from gemix.data.image_set import ImageSet
from gemix.data.shards.manifest import Manifest
from gemix.evaluation.classification.normal_class import normal_class
from gemix.evaluation.classification.rates import score
from gemix.gan.checkpoints.generator_io import load_generator
from gemix.io.resume_cache import digest_of
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.runtime.classifier_training import repetitions
from gemix.sweep.objective import Scores
from gemix.synthesis.cache import ImageCache, joined
from gemix.synthesis.class_weights import resolve_class_weights
from gemix.synthesis.teacher import Teachers

IMAGES, TRAININGS = "images", "trainings"
"""Directories of the sweep: blocks of synthetic images, histories of trainings. Both may be
deleted; what is missing is made again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """A trial after an epoch.

    Attributes:
        step: epochs so far, over all its seeds, from 1; those that a training which stops early
            leaves out are passed over at once.
        scores: means of the finished seeds and the best epoch of the present one.
        seed_scores: of the finished seeds, this one included if this was its last epoch.
    """

    step: int
    scores: Scores
    seed_scores: tuple[Scores, ...]


def steps_of(config: PipelineConfig) -> int:
    """Return the step of a trial's last report."""
    return config.sweep.seeds * config.classifier.epochs


def configured(config: PipelineConfig, settings: Mapping[str, Any]) -> PipelineConfig:
    """Return the configuration with a trial's settings, values by dotted path."""
    tree = config.to_mapping()
    tree["synthesis"]["count"] = None  # the ratio says how many
    for path, value in settings.items():
        section, key = path.split(".")
        tree[section][key] = value
    return PipelineConfig.from_mapping(tree)


def run_trial(
    config: PipelineConfig,
    workspace: Workspace,
    settings: Mapping[str, Any],
    method: str | None,
    training: ImageSet,
    validation: ImageSet,
    report: Callable[[Report], None],
) -> list[Scores]:
    """Train with each seed and report every epoch; `report` may raise to end the trial.

    A training that was finished before, by this trial or by another one of the same images and
    settings, is reported from what it left.

    Args:
        settings: what the trial changes (:meth:`gemix.sweep.space.SearchSpace.settings`).
        method: label sampler of its synthetic images; None for real images alone.
        training, validation: real images.

    Returns:
        The scores of each seed.
    """
    config = configured(config, settings)
    torch.set_num_threads(config.compute.cpus_per_worker)
    images = training_images(config, workspace, method, training)
    store = Store(workspace.sweep) / TRAININGS
    normal = normal_class(training.classes, config.data.normal_class)
    finished: list[Scores] = []
    classifier = dataclasses.replace(config.classifier, seeds=config.sweep.seeds)
    for index, repetition in enumerate(repetitions(classifier, len(training))):
        seed = _Seed(finished, index * repetition.epochs, repetition.epochs, report)
        name = f"{_address(repetition, images, validation, normal)}.json"
        if store.exists(name):
            for row in store.read_json(name):
                seed.on_epoch(row)
        else:
            result = train(
                images,
                validation,
                repetition,
                lambda labels, found: score(labels, found, len(training.classes), normal),
                real_images=len(training),
                on_epoch=seed.on_epoch,
                allow_overlap=config.data.allow_overlap,
            )
            store.write_json(name, result.history)
        seed.end()
        finished.append(seed.best)
    return finished


class _Seed:
    """Follow one training and report it as a part of its trial."""

    def __init__(
        self, finished: list[Scores], before: int, epochs: int, report: Callable[[Report], None]
    ):
        self._finished, self._before, self._epochs = tuple(finished), before, epochs
        self._report, self._rank, self._epoch = report, (-1.0, 0.0), 0
        self.best: Scores

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Report an epoch; the best one counts, as :func:`gemix.classifier.train.train` has it."""
        if rank_of_epoch(row) > self._rank:
            self._rank, self.best = rank_of_epoch(row), Scores.of_row(row)
        self._send(int(row["epoch"]))

    def end(self) -> None:
        """Report the last step of a training that stopped early: nothing changed on the way."""
        if self._epoch < self._epochs:
            self._send(self._epochs)

    def _send(self, epoch: int) -> None:
        self._epoch, seeds = epoch, (*self._finished, self.best)
        self._report(
            Report(
                step=self._before + epoch,
                scores=Scores.mean(seeds),
                seed_scores=seeds if epoch == self._epochs else self._finished,
            )
        )


def training_images(
    config: PipelineConfig, workspace: Workspace, method: str | None, real: ImageSet
) -> ImageSet:
    """Return real images with the synthetic ones that the settings ask for; `method` None: none."""
    if method is None:
        return real
    settings, teachers = config.synthesis, None
    if settings.needs_teacher:
        teachers = Teachers.load(settings.teacher or workspace.teacher)
    synthetic = ImageCache(Store(workspace.sweep) / IMAGES).images(
        load_generator(Store(settings.generator or workspace.gan)),
        method,
        count=settings.images(len(real)),
        labels=resolve_class_weights(config.labels, Manifest.load(Store(workspace.data))),
        config=settings,
        teachers=teachers,
    )
    return joined(real, synthetic)


def _address(
    config: ClassifierConfig, training: ImageSet, validation: ImageSet, normal: int | None
) -> str:
    """Return the hex digest of all that a training's history depends on."""
    return digest_of(
        {
            "classifier": {k: v for k, v in config.to_mapping().items() if k != "seeds"}
            | {"weights": weights_sha256(config.weights)},
            "training": training.digest,
            "validation": validation.digest,
            "normal": normal,
        }
    )
