"""Rates of a classifier, computed from its confusion matrix.

Functions take batches of matrices, so that a bootstrap of thousands of resamples costs a few
array operations. Values equal scikit-learn's with ``average="macro"``, ``zero_division=0`` and the
classes of the truth as ``labels``: a class that is never predicted has precision 0; a class without
an image has no rates and stays out of macro averages.
"""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np

from gemix.core.errors import DataError

RATES = (
    "accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "macro_f2",
    "fnr",
    "missed_disease_rate",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassRates:
    """Rates of each class.

    Attributes:
        precision: float64 [..., K], NaN for a class that is not in the truth.
        recall: float64 [..., K], likewise; the class's false-negative rate is 1 - recall.
    """

    precision: np.ndarray
    recall: np.ndarray


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Count (truth, prediction) pairs: int64 [K, K], rows are the truth.

    Args:
        labels, predictions: class indices, int [N], 0 to K - 1.
        classes: K.

    Raises:
        DataError: for arrays of different lengths, or indices outside the classes.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.ndim != 1:
        raise DataError(
            f"{labels.shape} labels and {predictions.shape} predictions; give one of each an image"
        )
    both = np.concatenate([labels, predictions])
    if len(both) and (both.min() < 0 or both.max() >= classes):
        raise DataError(f"class indices from {both.min()} to {both.max()}, want 0 to {classes - 1}")
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(
        classes, classes
    )


def class_rates(confusion: np.ndarray) -> ClassRates:
    """Return precision and recall of each class of confusion matrices [..., K, K]."""
    hits, truth, predicted = _margins(confusion)
    with np.errstate(invalid="ignore"):
        recall = np.where(truth > 0, hits / truth, np.nan)
        precision = np.where(truth > 0, hits / np.maximum(predicted, 1), np.nan)
    return ClassRates(precision=precision, recall=recall)


def rates(confusion: np.ndarray, normal: int | None = None) -> dict[str, np.ndarray]:
    """Return the rates of `RATES` of each of a batch of confusion matrices.

    Macro averages give every class the same weight. F-beta is
    (1 + beta^2) P R / (beta^2 P + R): F2 weighs recall, that is missed disease, four times
    as much as precision. `fnr` is the macro false-negative rate, 1 - macro recall, as the source
    paper reports it. `missed_disease_rate` is the share of diseased images that are predicted
    normal.

    Args:
        confusion: counts, [..., K, K], rows are the truth; fractional weights are allowed.
        normal: index of the healthy class; None if there is none.

    Returns:
        float64 [...] for each name; NaN where a matrix has no image to compute it from.
    """
    hits, truth, predicted = _margins(confusion)
    by_class = class_rates(confusion)
    recall = _mean(by_class.recall)
    return {
        "accuracy": _ratio(hits.sum(axis=-1), truth.sum(axis=-1)),
        "macro_precision": _mean(by_class.precision),
        "macro_recall": recall,
        "macro_f1": _mean(_f_beta(hits, truth, predicted, 1.0)),
        "macro_f2": _mean(_f_beta(hits, truth, predicted, 2.0)),
        "fnr": 1 - recall,
        "missed_disease_rate": _missed_disease(confusion, normal),
    }


def score(
    labels: np.ndarray, predictions: np.ndarray, classes: int, normal: int | None = None
) -> dict[str, float | None]:
    """Return the rates of one classifier; None for those that cannot be computed.

    Args:
        labels, predictions: class indices, int [N].
        classes: K.
        normal: index of the healthy class; None if there is none.
    """
    found = rates(confusion_matrix(labels, predictions, classes), normal)
    return {name: None if np.isnan(value) else float(value) for name, value in found.items()}


def chance_macro_f2(classes: int) -> float:
    """Return the highest macro-F2 that guessing can expect: 1 / K for any class frequencies.

    Guessing class c with probability q_c has recall q_c and, for the class frequency p_c,
    precision p_c: F2 = 5 p_c q_c / (4 p_c + q_c). The mean over the classes is largest at q = p,
    where it is 1 / K.
    """
    return 1 / classes


def _margins(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hits, images and predictions of each class: [..., K] each."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return hits, confusion.sum(axis=-1), confusion.sum(axis=-2)


def _f_beta(hits: np.ndarray, truth: np.ndarray, predicted: np.ndarray, beta: float) -> np.ndarray:
    """Return F-beta of each class, NaN for a class that is not in the truth: [..., K].

    In counts, (1 + beta^2) TP / ((1 + beta^2) TP + beta^2 FN + FP), which has the denominator
    beta^2 (TP + FN) + (TP + FP).
    """
    value = _ratio((1 + beta**2) * hits, beta**2 * truth + predicted)
    return np.where(truth > 0, value, np.nan)


def _missed_disease(confusion: np.ndarray, normal: int | None) -> np.ndarray:
    if normal is None:
        return np.full(confusion.shape[:-2], np.nan)
    diseased = np.delete(confusion, normal, axis=-2)
    return _ratio(diseased[..., normal].sum(axis=-1), diseased.sum(axis=(-2, -1)))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, np.nan)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the classes that have a value."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.nanmean(values, axis=-1)
