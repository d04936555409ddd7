"""Class weights by name: how often each class dominates a synthetic set.

A name is resolved to numbers once, before a set is made, so that the samplers stay functions of
numbers and every worker draws from the same ones.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Mapping

import numpy as np

from gemix.core.errors import CheckpointError, DataError
from gemix.data.leakage.provenance import Provenance
from gemix.data.shards.manifest import Manifest
from gemix.io.storage import Store
from gemix.labels import LabelConfig, check_class_weights


def resolve_class_weights(labels: LabelConfig, real: Manifest) -> LabelConfig:
    """Return the settings with the class weights in numbers, null for uniform ones.

    Args:
        labels: as configured.
        real: manifest of the real images; their training split is what is counted.

    Raises:
        DataError: for another number of weights than classes, a class whose weight would be
            infinite, or a classifier of other classes or of an earlier version.
        CheckpointError: if there is no classifier in ``labels.recall_of``.
    """
    check_class_weights(labels, len(real.classes))
    counts = np.array([real.counts["train"][name] for name in real.classes], dtype=np.float64)
    match labels.class_weights:
        case "uniform":
            return dataclasses.replace(labels, class_weights=None)
        case "real":
            weights = counts
        case "inverse_frequency":
            weights = inverse_frequency(counts, real.classes)
        case "inverse_recall":
            weights = inverse_recall(*recall_counts(labels, real.classes), real.classes)
        case _:
            return labels
    return dataclasses.replace(labels, class_weights=tuple(weights.tolist()), recall_of=None)


def class_shares(labels: LabelConfig, classes: tuple[str, ...]) -> dict[str, float]:
    """Return the probability that each class dominates, of resolved settings."""
    weights = np.array(labels.class_weights or [1.0] * len(classes))
    return dict(zip(classes, (weights / weights.sum()).tolist(), strict=True))


def inverse_frequency(counts: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Return 1 / n for the classes' numbers of training images n, float64 [K].

    Raises:
        DataError: for a class without an image.
    """
    _refuse_zero(counts, classes, "inverse_frequency", "training images")
    return 1 / counts


def inverse_recall(found: np.ndarray, images: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Return 1 / recall of each class, float64 [K], with recalls of 3 / n at least.

    Of n images none may be found although the recall is as high as 3 / n: that is the upper end of
    its 95% interval (the rule of three; Hanley and Lippman-Hand, "If nothing goes wrong, is
    everything all right?", JAMA 249, 1983). A weight above n / 3 has no support in n images.

    Args:
        found: validation images of each class that were predicted as that class, [K].
        images: validation images of each class, [K].
        classes: K names.

    Raises:
        DataError: for a class without a validation image.
    """
    _refuse_zero(images, classes, "inverse_recall", "validation images of labels.recall_of")
    return 1 / np.maximum(found / images, np.minimum(3 / images, 1))


def recall_counts(labels: LabelConfig, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return found and all validation images of each class, float64 [K] each, in this order.

    Raises:
        DataError, CheckpointError: as :func:`resolve_class_weights` raises them.
    """
    by_name = validation_counts(labels)
    if by_name.keys() != set(classes):
        raise DataError(
            f"labels.recall_of: the classifier in {labels.recall_of} knows the classes "
            f"{list(by_name)}, the data have {list(classes)}; name one that was trained on these "
            "classes"
        )
    found, images = np.array([by_name[name] for name in classes], dtype=np.float64).T
    return found, images


def validation_counts(labels: LabelConfig) -> Mapping[str, tuple[int, int]]:
    """Return found and all validation images by class of the classifier ``labels.recall_of``.

    Raises:
        CheckpointError: if there is no classifier, or it is damaged.
        DataError: if an earlier version trained it, which recorded no recall of each class.
    """
    # here, since it loads timm, which a synthesis does without
    from gemix.classifier.bundle import Classifier

    try:
        classifier = Classifier.load(Store(labels.recall_of))
    except CheckpointError as error:
        raise CheckpointError(f"labels.recall_of: {error}") from error
    confusion = classifier.validation_confusion
    if confusion is None:
        raise DataError(
            f"labels.recall_of: {labels.recall_of} was trained by an earlier version of gemix, "
            "which recorded no recall of each class; train it again with --overwrite"
        )
    return {
        name: (confusion[index][index], sum(confusion[index]))
        for index, name in enumerate(classifier.classes)
    }


def recall_provenance(labels: LabelConfig) -> list[Provenance]:
    """Return the record of what the classifier ``labels.recall_of`` has seen, if it is used."""
    if labels.recall_of is None:
        return []
    # one record for all classifiers of a work directory
    folder = Store(posixpath.dirname(Store(labels.recall_of).url))
    return [Provenance(folder, "the classifier of labels.recall_of")]


def _refuse_zero(counts: np.ndarray, classes: tuple[str, ...], weights: str, what: str) -> None:
    missing = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if missing:
        raise DataError(
            f"labels.class_weights={weights}: no {what} of class {', '.join(missing)}, so its "
            "weight would be infinite; give labels.class_weights as numbers, one a class"
        )
