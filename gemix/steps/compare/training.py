"""Train the classifiers of a comparison, each once, and predict the validation images."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from typing import Any

import numpy as np
import torch

from gemix.classifier.bundle import Classifier
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.train import train
from gemix.comparison.method import REPEATED, Method
from gemix.comparison.patients import draw_patients
from gemix.comparison.plan import Unit
from gemix.comparison.relabel.base import Labels
from gemix.comparison.relabel.registry import load_relabelling
from gemix.config import PipelineConfig
from gemix.core.errors import GemixError, TransientError
from gemix.data.image_set import ImageSet
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.data.shards.seal import sealed
from gemix.evaluation.classification.normal_class import normal_class
from gemix.evaluation.classification.rates import score
from gemix.io.resume_cache import digest_of
from gemix.io.storage import Store
from gemix.steps.compare.arrays import read_array, write_array
from gemix.synthesis.asked_labels import read_asked_labels
from gemix.synthesis.cache import joined

log = logging.getLogger("gemix.compare")

RECORD, VALIDATION = "record.json", "validation.npy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A training that has ended.

    Attributes:
        unit: what was trained.
        address: its directory below ``units``.
        scores: of the epoch that was kept, on validation; None if the training failed.
        failure: why it failed; None if it did not.
        steps: of the optimizer.
        real_exposures: how often a real image was shown, on average.
        real_images, synthetic_images, patients: in the training set.
        seconds: that it took.
    """

    unit: Unit
    address: str
    scores: dict[str, float] | None
    failure: str | None
    steps: int
    real_exposures: float
    real_images: int
    synthetic_images: int
    patients: int
    seconds: float

    @classmethod
    def of_json(cls, tree: dict[str, Any]) -> Trained:
        """Return the record that ``record.json`` holds."""
        return cls(**{**tree, "unit": Unit(**tree["unit"])})


class UnitTrainer:
    """Train units in one process; real and synthetic images are read once."""

    def __init__(self, config: dict[str, Any], url: str, data: str, sets: dict[str, str]):
        """Read the real images; the test split stays closed.

        Args:
            config: the configuration as a mapping.
            url: directory of the comparison.
            data: directory of the real images.
            sets: directories of the synthetic sets by name.
        """
        self.config = PipelineConfig.from_mapping(config)
        torch.set_num_threads(self.config.compute.cpus_per_worker)
        self.store, self.sets = Store(url), sets
        with sealed("test"):
            self.real, self.validation = (read_images([data], s) for s in ("train", "val"))
        self._synthetic: dict[str, tuple[ImageSet, np.ndarray]] = {}

    def __call__(self, unit: Unit) -> Trained:
        """Train, or return what an earlier run has trained."""
        method = Method.parse(unit.method)
        real = self._draw(unit)
        training, classifier = self._prepared(method, unit, real)
        address = digest_of(
            {
                "classifier": classifier.to_mapping(),
                "training": training.digest,
                "validation": self.validation.digest,
                "normal": self.config.data.normal_class,
            }
        )
        store = self.store / f"units/{address}"
        if store.exists(RECORD):
            found = Trained.of_json(store.read_json(RECORD))
            return dataclasses.replace(found, unit=unit, address=address)
        began = time.monotonic()
        scores, failure = self._train(store, training, len(real), classifier, unit)
        steps = classifier.epochs * max(1, round(classifier.epoch_images / classifier.batch))
        shown = steps * classifier.batch * _share_of_real(classifier, len(real), len(training))
        trained = Trained(
            unit=unit,
            address=address,
            scores=scores,
            failure=failure,
            steps=steps,
            real_exposures=shown / len(real),
            real_images=len(real),
            synthetic_images=len(training) - len(real),
            patients=len(set(real.groups)),
            seconds=time.monotonic() - began,
        )
        store.write_json(RECORD, dataclasses.asdict(trained))
        return trained

    def _train(
        self,
        store: Store,
        training: ImageSet,
        real_images: int,
        classifier: ClassifierConfig,
        unit: Unit,
    ) -> tuple[dict[str, float] | None, str | None]:
        classes = self.real.classes
        normal = normal_class(classes, self.config.data.normal_class)
        try:
            result = train(
                training,
                self.validation,
                classifier,
                lambda labels, found: score(labels, found, len(classes), normal),
                real_images=real_images,
                allow_overlap=self.config.data.allow_overlap,
            )
            trained = Classifier.of(
                result,
                classes=classes,
                method=unit.method,
                config=classifier,
                training_digest=training.digest,
            )
            probabilities = trained.predict(self.validation.images)
        except TransientError:
            raise
        except GemixError as error:  # one of many; the others go on
            log.warning("%s failed: %s", unit.name, error)
            return None, str(error)
        trained.save(store)
        write_array(store, VALIDATION, probabilities)
        log.info("%s: validation macro-F2 %.3f", unit.name, result.kept["val_macro_f2"])
        return dict(result.kept), None

    def _draw(self, unit: Unit) -> ImageSet:
        if unit.fraction == 1:
            return self.real
        rows = draw_patients(
            self.real.labels,
            self.real.groups,
            fraction=unit.fraction,
            draw=unit.draw,
            seed=self.config.compare.seed,
            classes=self.real.classes,
        )
        return _rows(self.real, rows, f"fraction {unit.fraction} draw {unit.draw}")

    def _prepared(
        self, method: Method, unit: Unit, real: ImageSet
    ) -> tuple[ImageSet, ClassifierConfig]:
        """Return the training set of a unit and how it is trained."""
        synthetic, asked = self._added(method.synthetic, len(real))
        training = real if synthetic is None else joined(real, synthetic)
        count = len(training)
        if method.images == REPEATED:
            count = len(real) + max(self._count(name, len(real)) for name in self.sets)
        if method.labels is not None:
            training = self._relabelled(method.labels, training, real, asked)
        settings = self.config.classifier
        same_steps = self.config.compare.budget == "steps"
        classifier = dataclasses.replace(
            method.configured(settings),
            model=unit.model,
            seed=unit.seed,
            seeds=1,
            # without a length of its own an epoch shows each image once: each real one as often
            epoch_images=(settings.epoch_images or len(real)) if same_steps else count,
        )
        return training, classifier

    def _relabelled(
        self, name: str, training: ImageSet, real: ImageSet, asked: np.ndarray
    ) -> ImageSet:
        reference = training.soft_labels
        if len(training) == len(real) and self.sets:
            soft, _ = self._added(next(iter(self.sets)), len(real))
            reference = np.concatenate([reference, soft.soft_labels])
        new_real, new_synthetic = load_relabelling(name)(
            Labels(
                real=real.soft_labels,
                synthetic=training.soft_labels[len(real) :],
                asked=asked,
                reference=reference,
            )
        )
        labels = np.concatenate([new_real, new_synthetic])
        digest = digest_of([training.digest, hashlib.sha256(labels.tobytes()).hexdigest()])
        return dataclasses.replace(
            training, soft_labels=labels, labels=labels.argmax(axis=1), digest=digest
        )

    def _count(self, name: str, real_images: int) -> int:
        """Return how many images of a synthetic set are added."""
        available = Manifest.load(Store(self.sets[name])).images("train")
        ratio = self.config.compare.ratio
        return available if ratio is None else min(available, max(1, round(ratio * real_images)))

    def _added(self, name: str | None, real_images: int) -> tuple[ImageSet | None, np.ndarray]:
        """Return the synthetic images that are added, if any, and the labels asked for."""
        if name is None:
            return None, np.empty((0, len(self.real.classes)), np.float32)
        if name not in self._synthetic:
            url = self.sets[name]
            self._synthetic[name] = read_images([url], "train"), read_asked_labels(url, "train")
        images, asked = self._synthetic[name]
        rows = np.arange(self._count(name, real_images))
        return _rows(images, rows, f"first {len(rows)}"), asked[rows]


def validation_probabilities(store: Store, trained: Trained) -> np.ndarray:
    """Return the predictions of a training for the validation images, float32 [N, K]."""
    return read_array(store / f"units/{trained.address}", VALIDATION)


def _share_of_real(classifier: ClassifierConfig, real: int, whole: int) -> float:
    """Return the share of real images among those that a training shows."""
    if whole == real:
        return 1.0
    if classifier.recipe in ("curriculum", "pretrain"):
        return 1 - classifier.synthetic_share
    return real / whole


def _rows(images: ImageSet, rows: np.ndarray, name: str) -> ImageSet:
    """Return some of the images; `name` makes their digest another one."""
    if len(rows) == len(images):
        return images
    return ImageSet(
        images=images.images[rows],
        labels=images.labels[rows],
        soft_labels=images.soft_labels[rows],
        groups=tuple(images.groups[row] for row in rows),
        sources=tuple(images.sources[row] for row in rows),
        classes=images.classes,
        digest=digest_of([images.digest, name, rows.tolist()]),
    )
