"""The training images of a method: a draw of patients, and what is added to it."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from gemix.comparison.config import CompareConfig
from gemix.comparison.method import HELD_BACK, REPEATED, Method
from gemix.comparison.patients import draw_patients
from gemix.comparison.plan import Unit
from gemix.comparison.relabel.base import Labels
from gemix.comparison.relabel.registry import load_relabelling
from gemix.core.rng import Stream, permutation
from gemix.data.image_set import ImageSet
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.io.resume_cache import digest_of
from gemix.io.storage import Store
from gemix.steps.compare.sets import SetDirectories
from gemix.synthesis.asked_labels import read_asked_labels
from gemix.synthesis.cache import joined

_SETS_IN_MEMORY = 2  # synthetic ones; methods that use the same set follow one another


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingImages:
    """The images of one training.

    Attributes:
        images: the real ones first.
        real: how many of them are real.
        shown: images that an epoch shows where each real one is to be shown once, by ``mix``.
    """

    images: ImageSet
    real: int
    shown: int


class TrainingSets:
    """Build the training sets of a comparison; real images are read once."""

    def __init__(self, config: CompareConfig, data: str, sets: SetDirectories):
        """Read the real training images.

        Args:
            data: directory of the real images.
            sets: the synthetic ones, whose classes are matched with the real ones by name.
        """
        self.config, self.sets = config, sets
        # the digest of a set does not depend on the order of its rows; training does
        self.real = dataclasses.replace(
            read_images([data], "train"), digest=ordered_digest(data, "train")
        )
        self._available = {url: Manifest.load(Store(url)).images("train") for _, url in sets.all()}
        self._synthetic: collections.OrderedDict[str, tuple[ImageSet, np.ndarray]]
        self._synthetic = collections.OrderedDict()

    def of(self, unit: Unit) -> TrainingImages:
        """Return the images of a training."""
        method, drawn = Method.parse(unit.method), self._draw(unit)
        real = _rows(self.real, drawn)
        if method.images == HELD_BACK:
            synthetic = self._held_back(drawn, unit)
            asked = synthetic.soft_labels
        else:
            synthetic, asked = self._added(method.synthetic, len(real), unit)
        training = real if synthetic is None else joined(real, synthetic)
        shown = len(training)
        if method.images == REPEATED:
            counts = [self._count(name, len(real), unit) for name in self.sets.names]
            shown = len(real) + max(counts, default=0)
        if method.labels is not None:
            training = self._relabelled(method.labels, training, real, asked, unit)
        return TrainingImages(images=training, real=len(real), shown=shown)

    def _draw(self, unit: Unit) -> np.ndarray:
        """Return the rows of a draw of patients."""
        if unit.fraction == 1:
            return np.arange(len(self.real))
        return draw_patients(
            self.real.labels,
            self.real.groups,
            fraction=unit.fraction,
            draw=unit.draw,
            seed=self.config.seed,
            classes=self.real.classes,
        )

    def _held_back(self, drawn: np.ndarray, unit: Unit) -> ImageSet:
        """Return images of the patients that are not drawn, as many as synthetic ones if possible.

        They are the first of a permutation, so that their classes are as frequent as among all.
        """
        rest = np.setdiff1d(np.arange(len(self.real)), drawn)
        if self.config.ratio is not None:
            count = max(1, round(self.config.ratio * len(drawn)))
        else:
            counts = [self._count(name, len(drawn), unit) for name in self.sets.names]
            count = min(counts, default=len(rest))
        order = permutation(self.config.seed, Stream.SYNTHETIC_SUBSET, len(rest))
        return _rows(self.real, np.sort(rest[order[:count]]))

    def _relabelled(
        self, name: str, training: ImageSet, real: ImageSet, asked: np.ndarray, unit: Unit
    ) -> ImageSet:
        reference = training.soft_labels
        if len(training) == len(real) and self.sets.names:
            first = dataclasses.replace(unit, generator=None)
            soft, _ = self._added(self.sets.names[0], len(real), first)
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

    def _count(self, name: str, real_images: int, unit: Unit) -> int:
        """Return how many images of a synthetic set are added, the same of each generator."""
        urls, ratio = self.sets.of(name, unit.fraction, unit.draw), self.config.ratio
        available = min(self._available[url] for url in urls)
        return available if ratio is None else min(available, max(1, round(ratio * real_images)))

    def _added(
        self, name: str | None, real_images: int, unit: Unit
    ) -> tuple[ImageSet | None, np.ndarray]:
        """Return the synthetic images that are added, if any, and the labels asked for.

        Fewer images are among more: the first of a permutation, since a set may be sorted.
        """
        if name is None:
            return None, np.empty((0, len(self.real.classes)), np.float32)
        url = self.sets.of(name, unit.fraction, unit.draw)[unit.generator or 0]
        classes = self.real.classes
        if url not in self._synthetic:
            images = read_images([url], "train", classes)
            images = dataclasses.replace(images, digest=ordered_digest(url, "train", classes))
            self._synthetic[url] = images, read_asked_labels(url, "train", classes)
            if len(self._synthetic) > _SETS_IN_MEMORY:
                self._synthetic.popitem(last=False)
        self._synthetic.move_to_end(url)
        images, asked = self._synthetic[url]
        order = permutation(self.config.seed, Stream.SYNTHETIC_SUBSET, len(images))
        rows = np.sort(order[: self._count(name, real_images, unit)])
        return _rows(images, rows), asked[rows]


def ordered_digest(url: str, split: str, classes: Sequence[str] | None = None) -> str:
    """Return a digest of a split's files, which holds for the order of its rows, too.

    Args:
        classes: the order that labels are read in; None for that of the set.
    """
    manifest = Manifest.load(Store(url))
    digest = digest_of([[shard.name, shard.sha256] for shard in manifest.shards_of(split)])
    if classes is None or tuple(classes) == manifest.classes:
        return digest
    return digest_of([digest, manifest.classes, list(classes)])


def _rows(images: ImageSet, rows: np.ndarray) -> ImageSet:
    if len(rows) == len(images):
        return images
    return ImageSet(
        images=images.images[rows],
        labels=images.labels[rows],
        soft_labels=images.soft_labels[rows],
        groups=tuple(images.groups[row] for row in rows),
        sources=tuple(images.sources[row] for row in rows),
        classes=images.classes,
        digest=digest_of([images.digest, rows.tolist()]),
    )
