"""Rates of predicted probabilities: ranking (AUROC), calibration (Brier, ECE), thresholds.

`weights` are how often each image is drawn in each resample of the patients; ones give the rate of
the images as they are.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

_CHUNK = 256  # resamples at a time
BINS = 15  # of the calibration error, as Guo et al. (2017) have them


def auroc(is_positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve: the share of pairs that are in the right order.

    Ties count half. Equals scikit-learn's ``roc_auc_score`` with ``sample_weight``.

    Args:
        is_positive: bool [N].
        scores: higher for positives, float [N].
        weights: float [R, N].

    Returns:
        float64 [R]; NaN for weights without a positive or without a negative.
    """
    order = np.argsort(scores, kind="stable")
    positive = is_positive[order]
    _, first, counts = np.unique(scores[order], return_index=True, return_counts=True)
    found = [
        _auroc(positive, first, counts, weights[start : start + _CHUNK, order].astype(np.float64))
        for start in range(0, len(weights), _CHUNK)
    ]
    return np.concatenate(found)


def _auroc(
    positive: np.ndarray, first: np.ndarray, counts: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return areas for weights [r, N] of images in the order of their scores.

    Args:
        first, counts: of the runs of equal scores.
    """
    below = np.cumsum(np.where(positive, 0.0, weights), axis=1)
    below = np.concatenate([np.zeros((len(weights), 1)), below], axis=1)
    before, after = below[:, first], below[:, first + counts]
    beaten = np.repeat((before + after) / 2, counts, axis=1)
    of_positives = np.where(positive, weights, 0.0)
    pairs = of_positives.sum(axis=1) * below[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, (of_positives * beaten).sum(axis=1) / pairs, np.nan)


def macro_auroc(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean over the classes of one class against the rest: float64 [R].

    Args:
        labels: int [N].
        probabilities: float [N, K].
        weights: float [R, N].
    """
    classes = np.unique(labels)
    by_class = [auroc(labels == k, probabilities[:, k], weights) for k in classes]
    return np.mean(by_class, axis=0)


def brier(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean squared distance to the one-hot truth, summed over the classes: float64 [R].

    Brier, "Verification of forecasts expressed in terms of probability", 1950; 0 to 2.
    """
    truth = np.eye(probabilities.shape[1])[labels]
    errors = ((probabilities - truth) ** 2).sum(axis=1)
    return weights @ errors / weights.sum(axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
    """Confidence against accuracy, over `BINS` bins of equal width.

    Guo et al., "On calibration of modern neural networks", ICML 2017, section 2.

    Attributes:
        confidence: mean probability of the most probable class, float64 [BINS]; NaN without images.
        accuracy: share of images whose most probable class is right, float64 [BINS]; likewise.
        counts: images, int64 [BINS].
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error, 0 to 1: equation 3 there."""
        gaps = np.abs(np.nan_to_num(self.accuracy - self.confidence))
        return float(gaps @ self.counts / self.counts.sum())


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """Return confidence and accuracy by bins of confidence.

    Args:
        labels: int [N].
        probabilities: float [N, K].
    """
    confidence, found = probabilities.max(axis=1), probabilities.argmax(axis=1)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = (np.bincount(bins, weights=of, minlength=BINS) for of in (confidence, found == labels))
    with np.errstate(invalid="ignore"):
        mean_confidence, accuracy = (total / counts for total in sums)
    return Reliability(confidence=mean_confidence, accuracy=accuracy, counts=counts)


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean distance of confidence and accuracy over bins of equal width, 0 to 1."""
    return reliability(labels, probabilities).error


def sensitivity(
    is_diseased: np.ndarray, scores: np.ndarray, threshold: float, weights: np.ndarray
) -> np.ndarray:
    """Return the share of diseased images that score at least the threshold: float64 [R]."""
    return _share(is_diseased, scores >= threshold, weights)


def specificity(
    is_diseased: np.ndarray, scores: np.ndarray, threshold: float, weights: np.ndarray
) -> np.ndarray:
    """Return the share of healthy images that score below the threshold: float64 [R]."""
    return _share(~is_diseased, scores < threshold, weights)


def _share(among: np.ndarray, hits: np.ndarray, weights: Any) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights @ (among & hits)) / (weights @ among)
