"""Statistics of a block: rates of each method, corrected differences, what they show."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from gemix.comparison.config import CompareConfig
from gemix.comparison.findings import THRESHOLD_MOVED
from gemix.comparison.plan import Block
from gemix.data.image_set import ImageSet
from gemix.evaluation.classification.bootstrap import Comparison, compare_methods
from gemix.evaluation.classification.probability_rates import threshold_at_specificity


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a block's trainings predict, by method.

    Attributes:
        validation, test: class probabilities, float32 [S, N, K] each.
    """

    validation: Mapping[str, np.ndarray]
    test: Mapping[str, np.ndarray]


def compare_on(
    images: ImageSet,
    probabilities: Mapping[str, np.ndarray],
    *,
    config: CompareConfig,
    block: Block,
    baseline: str,
    normal: int | None,
    moved: Mapping[str, np.ndarray] | None = None,
    thresholds: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Comparison]:
    """Compare methods with a baseline on the validation or the test images.

    Args:
        probabilities: of each method, float32 [S, N, K].
        moved: predictions of further rows, int64 [S, N], which have the baseline's probabilities.
        thresholds: on the probability of disease, of each row, one a training.
    """
    found = {method: rows.argmax(axis=2) for method, rows in probabilities.items()}
    extra = dict(moved or {})
    return compare_methods(
        images.labels,
        found | extra,
        images.groups,
        classes=len(images.classes),
        normal=normal,
        baseline=baseline,
        probabilities={**probabilities, **dict.fromkeys(extra, probabilities[config.baseline])},
        thresholds=thresholds,
        draws=block.draws,
        seed=config.seed,
    )


def operating_points(
    validation: ImageSet, predictions: Predictions, config: CompareConfig, normal: int | None
) -> tuple[dict[str, list[float]] | None, dict[str, np.ndarray]]:
    """Choose thresholds on the validation images.

    Returns:
        For each row, one threshold a training at which its specificity on validation is that of
        the baseline; and the test predictions of the row `THRESHOLD_MOVED`: the baseline, with a
        lower threshold. None and nothing without a healthy class.
    """
    if normal is None:
        return None, {}
    diseased = validation.labels != normal
    baseline = predictions.validation[config.baseline]
    specificity = float((baseline.argmax(axis=2)[:, ~diseased] == normal).mean())

    def thresholds(rows: np.ndarray, wanted: float) -> list[float]:
        return [threshold_at_specificity(diseased, 1 - row[:, normal], wanted) for row in rows]

    same = {
        method: thresholds(rows, specificity) for method, rows in predictions.validation.items()
    }
    same[THRESHOLD_MOVED] = same[config.baseline]
    lower = thresholds(baseline, max(0.0, specificity - config.specificity_loss))
    moved = [
        move_threshold(rows, normal, at)
        for rows, at in zip(predictions.test[config.baseline], lower, strict=True)
    ]
    return same, {THRESHOLD_MOVED: np.stack(moved)}


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
