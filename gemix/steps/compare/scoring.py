"""Predict the test images with the classifiers of a comparison."""

from __future__ import annotations

import numpy as np
import torch

from gemix.classifier.bundle import WEIGHTS, Classifier
from gemix.core.errors import DataError
from gemix.data.shards.reading import read_images
from gemix.io.storage import Store
from gemix.steps.compare.arrays import read_array, write_array


class UnitScorer:
    """Predict in one process, which reads the test images once."""

    def __init__(self, url: str, data: str, threads: int, keep_weights: bool):
        """Read the test images.

        Args:
            url: directory of the comparison.
            data: directory of the real images.
            keep_weights: whether weights stay after the predictions are written.
        """
        torch.set_num_threads(threads)
        self.store, self.keep_weights = Store(url), keep_weights
        self.test = read_images([data], "test")

    def __call__(self, address: str) -> np.ndarray:
        """Return class probabilities of the test images, float32 [N, K], and keep them."""
        store, name = self.store / f"units/{address}", predictions_name(self.test.digest)
        if store.exists(name):
            return read_array(store, name)
        if not store.exists(WEIGHTS):
            raise DataError(
                f"{store.url}: its weights were deleted after another test set was predicted; "
                "delete the directory and run gemix compare again, which trains it"
            )
        classifier = Classifier.load(store)
        if classifier.classes != self.test.classes:
            raise DataError(
                f"{store.url}: knows the classes {list(classifier.classes)}, the test set has "
                f"{list(self.test.classes)}; run gemix compare --overwrite"
            )
        probabilities = classifier.predict(self.test.images)
        write_array(store, name, probabilities)
        if not self.keep_weights:
            store.delete(WEIGHTS)
        return probabilities


def predictions_name(test_digest: str) -> str:
    """Return the file of a unit's predictions for a test set."""
    return f"test-{test_digest[:16]}.npy"
