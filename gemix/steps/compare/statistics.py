"""Statistics of a block: rates of each method, corrected differences, what they show."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

from gemix.classifier.decision.specificity import threshold_at_specificity
from gemix.comparison.config import CompareConfig
from gemix.comparison.findings import THRESHOLD_MOVED
from gemix.comparison.plan import Block
from gemix.data.image_set import ImageSet
from gemix.evaluation.classification.bootstrap import Comparison, Resampled, compare_methods
from gemix.io.results import REAL

POWER = 0.8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of a block's trainings, by method.

    Attributes:
        validation, test: class probabilities, float32 [S, N, K] each.
    """

    validation: Mapping[str, np.ndarray]
    test: Mapping[str, np.ndarray]


def resampled(
    images: ImageSet,
    probabilities: Mapping[str, np.ndarray],
    *,
    config: CompareConfig,
    block: Block,
    normal: int | None,
    thresholds: Mapping[str, Sequence[float]] | None = None,
) -> Resampled:
    """Resample the patients of the validation or the test images.

    Args:
        probabilities: of each method, float32 [S, N, K].
        thresholds: on the probability of disease, of each method, one a training.
    """
    return Resampled(
        images.labels,
        {method: rows.argmax(axis=2) for method, rows in probabilities.items()},
        images.groups,
        classes=len(images.classes),
        normal=normal,
        probabilities=probabilities,
        thresholds=thresholds,
        draws=block.draws,
        generators=block.generators,
        seed=config.seed,
    )


def compare_threshold(
    test: ImageSet, baseline: np.ndarray, moved: np.ndarray, *, normal: int, seed: int
) -> Comparison:
    """Compare the baseline at a lower threshold with itself: differences are paired by training.

    Args:
        baseline: class probabilities, float32 [S, N, K].
        moved: predictions at the threshold, int64 [S, N].
        seed: of the resamples.
    """
    return compare_methods(
        test.labels,
        {REAL: baseline.argmax(axis=2), THRESHOLD_MOVED: moved},
        test.groups,
        classes=len(test.classes),
        normal=normal,
        draws=len(baseline),
        seed=seed,
    )[THRESHOLD_MOVED]


def detectable_difference(found: Comparison) -> float | None:
    """Return the difference in macro-F2 to the baseline that is found with 80% power.

    The interval is the joint one, which is what counts.
    """
    difference = found.differences.get("macro_f2")
    if difference is None or difference.error is None:
        return None
    df = math.inf if difference.df is None else difference.df
    half = (difference.joint_high - difference.joint_low) / 2
    return half + float(stdtrit(min(df, 1e10), POWER)) * difference.error


def operating_points(
    validation: ImageSet, predictions: Predictions, config: CompareConfig, normal: int | None
) -> tuple[dict[str, list[float]] | None, np.ndarray | None]:
    """Choose thresholds on the validation images.

    Returns:
        For each method, one threshold a training at which its specificity on validation is that of
        the baseline; and the baseline's test predictions at a lower threshold, int64 [S, N]. None
        without healthy, or without diseased, validation images.
    """
    diseased = validation.labels != normal
    if normal is None or diseased.all() or not diseased.any():
        return None, None
    baseline = predictions.validation[config.baseline]
    specificity = float((baseline.argmax(axis=2)[:, ~diseased] == normal).mean())

    def thresholds(rows: np.ndarray, wanted: float) -> list[float]:
        return [threshold_at_specificity(diseased, 1 - row[:, normal], wanted) for row in rows]

    same = {
        method: thresholds(rows, specificity) for method, rows in predictions.validation.items()
    }
    lower = thresholds(baseline, max(0.0, specificity - config.specificity_loss))
    moved = [
        move_threshold(rows, normal, at)
        for rows, at in zip(predictions.test[config.baseline], lower, strict=True)
    ]
    return same, np.stack(moved)


def move_threshold(probabilities: np.ndarray, normal: int, threshold: float) -> np.ndarray:
    """Return the most probable disease where disease is at least as probable as the threshold.

    Args:
        probabilities: [N, K].

    Returns:
        int64 [N]; elsewhere the healthy class.
    """
    diseases = probabilities.copy()
    diseases[:, normal] = -1.0
    is_ill = 1 - probabilities[:, normal] >= threshold
    return np.where(is_ill, diseases.argmax(axis=1), normal)
