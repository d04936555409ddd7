"""Pictures of the best classifier's most confident misses and hits, with Grad-CAM maps."""

from __future__ import annotations

import logging
import math

import numpy as np

from gemix.classifier import grad_cam
from gemix.classifier.bundle import Classifier
from gemix.core.errors import DataError
from gemix.core.png import encode_png, tile
from gemix.data.image_set import ImageSet
from gemix.evaluation import projection
from gemix.io.explanation_record import (
    EXPLANATION,
    EXPLANATION_VIEW,
    Explanation,
    ShownImage,
)
from gemix.io.predictions import Predictions
from gemix.io.records import write_record
from gemix.io.storage import Store

log = logging.getLogger("gemix.evaluate")

MISSES, HITS = 12, 6
OPTIONAL_PACKAGES = {"captum": grad_cam.is_installed, "openTSNE": projection.is_installed}


def write_explanation(
    store: Store,
    name: str,
    classifier: Classifier,
    predictions: Predictions,
    test: ImageSet,
    *,
    no_projection: str | None,
) -> None:
    """Write ``explanation.json`` and its picture.

    Args:
        store: of the evaluation.
        name: of the classifier.
        predictions: its own, rows in the order of `test`.
        no_projection: why there is no t-SNE map though its package is there.
    """
    rows = shown_rows(predictions)
    images, predicted = test.images[rows], predictions.predicted[rows]
    maps, no_maps = _maps(classifier, images, predicted)
    view = images
    if maps is not None:
        grey = np.rint(255 * maps.maps).astype(np.uint8)[:, None]
        view = np.concatenate([images, grey.repeat(images.shape[1], axis=1)])
    store.write_bytes(EXPLANATION_VIEW, encode_png(tile(view, len(rows))))
    write_record(
        store,
        EXPLANATION,
        Explanation(
            classifier=name,
            tested=len(test),
            missed=int((predictions.predicted != predictions.labels).sum()),
            images=tuple(
                ShownImage(
                    label=int(predictions.labels[row]),
                    predicted=int(predictions.predicted[row]),
                    probability=round(float(predictions.confidence[row]), 4),
                )
                for row in rows
            ),
            layer=maps.layer if maps else None,
            cells=maps.cells if maps else None,
            missing_packages=tuple(
                name for name, is_there in OPTIONAL_PACKAGES.items() if not is_there()
            ),
            no_maps=no_maps,
            no_projection=no_projection,
        ),
    )


def shown_rows(predictions: Predictions) -> np.ndarray:
    """Return the test images to show: the most confident misses, then hits of each class.

    Of each patient the most confident alone, since slices of one patient are nearly equal.

    Returns:
        int64 [n], n at least 1.
    """
    is_hit = predictions.predicted == predictions.labels
    classes = predictions.probabilities.shape[1]
    of_each = math.ceil(HITS / classes)
    hits = [
        row
        for index in range(classes)
        for row in _most_confident(predictions, is_hit & (predictions.labels == index), of_each)
    ]
    misses = _most_confident(predictions, ~is_hit, MISSES)
    return np.array([*misses, *hits[:HITS]], np.int64)


def _most_confident(predictions: Predictions, among: np.ndarray, limit: int) -> list[int]:
    first: dict[str, int] = {}
    for row in np.argsort(-predictions.confidence, kind="stable"):
        if among[row]:
            first.setdefault(predictions.patients[row], int(row))
    return list(first.values())[:limit]


def _maps(
    classifier: Classifier, images: np.ndarray, classes: np.ndarray
) -> tuple[grad_cam.Maps | None, str | None]:
    """Return the maps, or why the network has none."""
    if not OPTIONAL_PACKAGES["captum"]():
        return None, None
    try:
        found = grad_cam.grad_cam(classifier.network, classifier.normalization, images, classes)
        return found, None
    except DataError as error:
        log.warning("%s; the report is without maps", error)
        return None, str(error)
