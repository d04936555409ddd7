"""Train the classifiers of a comparison, each once, and predict the validation images."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any, Self

import numpy as np
import torch

import gemix
from gemix.classifier.bundle import WEIGHTS, Classifier
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.models import weights_sha256
from gemix.classifier.recipes.base import RecipeContext
from gemix.classifier.recipes.registry import real_share
from gemix.classifier.train import TrainingResult, train
from gemix.comparison.method import Method
from gemix.comparison.plan import Unit
from gemix.config import PipelineConfig
from gemix.core.errors import GemixError, TransientError
from gemix.data.shards.reading import read_images
from gemix.data.shards.seal import sealed
from gemix.evaluation.classification.normal_class import normal_class
from gemix.evaluation.classification.rates import score
from gemix.io.resume_cache import digest_of
from gemix.io.storage import Store
from gemix.steps.compare.arrays import read_array, write_array
from gemix.steps.compare.images import TrainingImages, TrainingSets, ordered_digest
from gemix.steps.compare.scoring import predictions_name
from gemix.steps.compare.sets import SetDirectories

log = logging.getLogger("gemix.compare")

RECORD, VALIDATION = "record.json", "validation.npy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A training that has ended.

    Attributes:
        address: its directory below ``units``; empty if it failed.
        failure: why it failed; None if it did not.
        scores: of the epoch that was kept, on validation.
        steps: of the optimizer.
        real_exposures: how often a real image was shown, on average.
        synthetic_images, real_images, patients: in the training set.
        seconds: that it took.
    """

    address: str = ""
    failure: str | None = None
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    steps: int = 0
    real_exposures: float = 0.0
    real_images: int = 0
    synthetic_images: int = 0
    patients: int = 0
    seconds: float = 0.0

    @classmethod
    def of_json(cls, tree: dict[str, Any]) -> Self:
        """Return the record that ``record.json`` holds."""
        return cls(**tree)


class UnitTrainer:
    """Train units in one process, which reads the real images once; the test split stays closed."""

    def __init__(self, config: dict[str, Any], url: str, data: str, sets: SetDirectories):
        """Read the images.

        Args:
            config: the configuration as a mapping.
            url: directory of the comparison.
            data: directory of the real images.
            sets: directories of the synthetic ones.
        """
        self.config = PipelineConfig.from_mapping(config)
        torch.set_num_threads(self.config.compute.cpus_per_worker)
        self.store = Store(url)
        with sealed("test"):
            self.training_sets = TrainingSets(self.config.compare, data, sets)
            self.validation = read_images([data], "val")
        self._held_out = ordered_digest(data, "val")
        self._predictions = predictions_name(ordered_digest(data, "test"))

    def __call__(self, unit: Unit) -> Trained:
        """Train, or return what an earlier run has trained.

        A failure is not kept: the same command tries again.
        """
        found = self.training_sets.of(unit)
        classifier = self._settings(unit, found)
        address = self._address(found, classifier)
        store = self.store / f"units/{address}"
        if store.exists(RECORD) and (store.exists(WEIGHTS) or store.exists(self._predictions)):
            return Trained.of_json(store.read_json(RECORD))
        began = time.monotonic()
        try:
            result = self._train(found, classifier)
            trained = Classifier.of(
                result,
                classes=found.images.classes,
                method=unit.method,
                config=classifier,
                training_digest=found.images.digest,
            )
            probabilities = trained.predict(self.validation.images)
        except TransientError:
            raise
        except (GemixError, RuntimeError) as error:  # one of many; the others go on
            reason = " ".join(str(error).split())[:300]
            log.warning("%s failed: %s", unit.name, reason)
            return Trained(failure=reason)
        trained.save(store)
        write_array(store, VALIDATION, probabilities)
        shown = result.steps * classifier.batch * _real_share(classifier, found)
        record = Trained(
            address=address,
            scores=dict(result.kept),
            steps=result.steps,
            real_exposures=shown / found.real,
            real_images=found.real,
            synthetic_images=len(found.images) - found.real,
            patients=len(set(found.images.groups[: found.real])),
            seconds=time.monotonic() - began,
        )
        store.write_json(RECORD, dataclasses.asdict(record))
        log.info("%s: validation macro-F2 %.3f", unit.name, result.kept["val_macro_f2"])
        return record

    def _settings(self, unit: Unit, found: TrainingImages) -> ClassifierConfig:
        """Return how a unit is trained: as many steps as the others, or exposures of real images.

        An epoch of `real` shows ``classifier.epoch_images`` images, by default each once.
        """
        settings = Method.parse(unit.method).configured(self.config.classifier)
        epoch = settings.epoch_images or found.real
        if self.config.compare.budget == "exposures":
            more = found.shown / found.real
            if len(found.images) > found.real:
                more = 1 / _real_share(settings, found)
            epoch = round(epoch * more)
        return dataclasses.replace(
            settings, model=unit.model, seed=unit.seed, seeds=1, epoch_images=epoch
        )

    def _train(self, found: TrainingImages, classifier: ClassifierConfig) -> TrainingResult:
        classes = found.images.classes
        normal = normal_class(classes, self.config.data.normal_class)
        return train(
            found.images,
            self.validation,
            classifier,
            lambda labels, predicted: score(labels, predicted, len(classes), normal),
            real_images=found.real,
            allow_overlap=self.config.data.allow_overlap,
        )

    def _address(self, found: TrainingImages, classifier: ClassifierConfig) -> str:
        """Return the hex digest of all that a training's result depends on."""
        return digest_of(
            {
                "version": gemix.__version__,
                "classifier": classifier.to_mapping(),
                "weights": weights_sha256(classifier.weights),
                "training": found.images.digest,
                "classes": list(found.images.classes),
                "validation": self._held_out,
                "normal": self.config.data.normal_class,
            }
        )


def _real_share(classifier: ClassifierConfig, found: TrainingImages) -> float:
    """Return the share of real images among those that a training shows."""
    context = RecipeContext.of(classifier, found.images.labels, real=found.real, steps=1)
    return real_share(classifier.recipe, context)


def validation_probabilities(store: Store, trained: Trained) -> np.ndarray:
    """Return the predictions of a training for the validation images, float32 [N, K]."""
    return read_array(store / f"units/{trained.address}", VALIDATION)
