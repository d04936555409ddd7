"""Predict the test images with the classifiers of a comparison."""

from __future__ import annotations

import numpy as np
import torch

from gemix.classifier.bundle import WEIGHTS, Classifier
from gemix.data.shards.reading import read_images
from gemix.io.storage import Store
from gemix.steps.compare.arrays import read_array, write_array
from gemix.steps.compare.images import ordered_digest


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
        self.name = predictions_name(ordered_digest(data, "test"))

    def __call__(self, address: str) -> np.ndarray:
        """Return class probabilities of the test images, float32 [N, K], and keep them."""
        store = self.store / f"units/{address}"
        if store.exists(self.name):
            probabilities = read_array(store, self.name)
        else:
            probabilities = Classifier.load(store).predict(self.test.images)
            write_array(store, self.name, probabilities)
        if not self.keep_weights and store.exists(WEIGHTS):
            store.delete(WEIGHTS)
        return probabilities


def predictions_name(test_digest: str) -> str:
    """Return the file of a unit's predictions for a test set.

    Args:
        test_digest: of its files (:func:`gemix.steps.compare.images.ordered_digest`).
    """
    return f"test-{test_digest[:16]}.npy"
