"""Labels asked against labels seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gemix.evaluation.label_fidelity.measure import (
    LabelFidelityMeter,
    entropy,
    label_fidelity,
)


def labels(count: int, seed: int = 0, alpha: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([alpha] * 3, size=count)


def test_a_generator_that_obeys_agrees_with_itself():
    asked = labels(500)
    found = label_fidelity(asked, asked)
    assert found.agreement.value == 1 and found.agreement.images == 500
    assert found.calibration_error == pytest.approx(0, abs=1e-12)
    assert found.entropy_correlation == pytest.approx(1)
    assert found.expected_agreement == pytest.approx(asked.max(axis=1).mean())
    for one in (*found.weights, *found.entropies):
        assert one.asked == pytest.approx(one.seen)
        assert one.low <= one.seen <= one.high
    assert sum(one.count for one in found.weights) == 1500
    assert sum(one.count for one in found.entropies) == 500


def test_agreement_and_its_interval_are_those_of_a_binomial_share():
    asked = np.eye(3)[np.repeat([0, 1, 2], [50, 30, 20])]
    seen = asked.copy()
    seen[:10] = np.eye(3)[2]  # a fifth of the first class
    found = label_fidelity(asked, seen)
    interval = stats.binomtest(90, 100).proportion_ci(method="wilson")
    assert (found.agreement.value, found.agreement.low) == (0.9, interval.low)
    assert [one.value for one in found.agreement_by_class] == [0.8, 1, 1]
    assert found.seen_by_class[0] == pytest.approx((0.8, 0, 0.2))
    assert found.entropy_correlation is None  # pure labels have no entropy to follow


def test_images_that_commit_to_a_class_are_calibrated_but_have_no_entropy():
    """The class of each image is drawn from its label: weights seen agree in the mean alone."""
    asked, rng = labels(4000), np.random.default_rng(1)
    shown = np.array([rng.choice(3, p=row) for row in asked])
    found = label_fidelity(asked, np.eye(3)[shown])
    assert found.agreement.low < found.expected_agreement < found.agreement.high
    assert found.calibration_error < 0.02
    assert all(one.seen == 0 for one in found.entropies)
    inside = [one.low <= one.asked <= one.high for one in found.weights]
    assert sum(inside) >= 9


def test_intervals_of_weights_cover_at_their_rate():
    """Over sets of images, not over weights: those of one image depend on one another."""
    covered = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        asked = np.tile([[0.45, 0.41, 0.14]], (200, 1))  # two weights in one bin
        seen = np.eye(3)[rng.choice(3, p=[0.5, 0.3, 0.2], size=200)]
        one = label_fidelity(asked, seen).weights[1]
        assert one.count == 400
        covered.append(one.low <= 0.4 <= one.high)
    assert 0.9 <= np.mean(covered) <= 0.99


def test_parts_add_up():
    asked, seen = labels(700), labels(700, seed=1)
    meter = LabelFidelityMeter(3)
    for rows in (slice(0, 1), slice(1, 400), slice(400, 700)):
        meter.add(asked[rows], seen[rows])
    found, whole = meter.result(), label_fidelity(asked, seen)
    assert found.agreement == whole.agreement
    np.testing.assert_allclose(
        [(b.count, b.asked, b.seen, b.low, b.high) for b in found.weights],
        [(b.count, b.asked, b.seen, b.low, b.high) for b in whole.weights],
    )
    assert found.entropy_correlation == pytest.approx(whole.entropy_correlation)
    expected = np.corrcoef(entropy(asked), entropy(seen))[0, 1]
    assert whole.entropy_correlation == pytest.approx(expected)


def test_a_class_that_was_not_asked_for_has_no_share():
    found = label_fidelity(np.eye(3)[[0, 0, 1]], np.eye(3)[[0, 1, 1]])
    assert found.agreement_by_class[2].value is None
    assert found.seen_by_class[2] == (0, 0, 0)
    with pytest.raises(ValueError, match="no image"):
        LabelFidelityMeter(3).result()
