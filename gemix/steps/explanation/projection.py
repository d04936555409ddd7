"""A t-SNE map of the best classifier's features: real training, real test, synthetic images."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from gemix.classifier.bundle import Classifier
from gemix.classifier.predict import predict_features
from gemix.core.errors import DataError
from gemix.core.rng import Stream, permutation
from gemix.data.image_set import ImageSet
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.evaluation.projection import is_installed, project
from gemix.io.explanation_record import PROJECTION, Projection
from gemix.io.records import write_record
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.sets.audited_images import list_rows

log = logging.getLogger("gemix.evaluate")

TRAIN, OTHERS = 1000, 500  # images of the training set, and of each other one, at most
_SEED = 0


def write_projection(
    store: Store,
    name: str,
    classifier: Classifier,
    workspace: Workspace,
    methods: Sequence[str],
    test: ImageSet,
) -> str | None:
    """Write ``projection.json``, fitted to training images, if openTSNE is installed.

    Synthetic images are those of the first method that has a set: the one that the verdict is
    about.

    Args:
        store: of the evaluation.
        name: of the classifier.
        methods: of synthesis, in the order of the configuration.

    Returns:
        Why there is none, though openTSNE is there; else None.
    """
    store.delete(PROJECTION)  # of an evaluation that was interrupted
    if not is_installed():
        return None
    method = _method(workspace, methods)
    try:
        rows = permutation(_SEED, Stream.METRIC, len(test))[:OTHERS]
        parts = {
            "train": _sample(workspace.data, TRAIN),
            "test": (test.images[rows], test.labels[rows]),
        }
        if method is not None:
            parts["synthetic"] = _sample(workspace.synthetic(method), OTHERS)
        reference, *others = [
            predict_features(classifier.network, classifier.normalization, images).cpu().numpy()
            for images, _ in parts.values()
        ]
        places = np.concatenate(project(reference, others, _SEED))
    except DataError as error:
        log.warning("%s; the report is without a t-SNE map", error)
        return str(error)
    labels = [labels for _, labels in parts.values()]
    sources = np.repeat(list(parts), [len(one) for one in labels])
    x, y = places.round(3).T.tolist()
    write_record(
        store,
        PROJECTION,
        Projection(
            classifier=name,
            method=method,
            x=tuple(x),
            y=tuple(y),
            label=tuple(np.concatenate(labels).tolist()),
            source=tuple(sources.tolist()),
        ),
    )
    return None


def _method(workspace: Workspace, methods: Sequence[str]) -> str | None:
    """Return the first method with a set of images like the real ones."""
    real = Manifest.load(Store(workspace.data))
    for method in methods:
        store = Store(workspace.synthetic(method))
        if store.exists(MANIFEST):
            found = Manifest.load(store)
            if (found.image_shape, found.classes) == (real.image_shape, real.classes):
                return method
    return None


def _sample(url: str, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images of a training split and their classes, uint8 [N, C, H, W] and int64 [N]."""
    store = Store(url)
    rows = list_rows([(store, Manifest.load(store))], ("train",)).sample(limit, _SEED)
    return rows.read(), rows.soft_labels.argmax(axis=1)
