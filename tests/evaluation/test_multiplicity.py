"""Corrections for several methods, and rates of probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from gemix.classifier.decision.specificity import threshold_at_specificity
from gemix.evaluation.classification.bootstrap import Resampled, compare_methods
from gemix.evaluation.classification.mrmc import Estimate
from gemix.evaluation.classification.multiplicity import JointTest, holm
from gemix.evaluation.classification.probability_rates import (
    auroc,
    brier,
    expected_calibration_error,
    macro_auroc,
    sensitivity,
    specificity,
)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@pytest.mark.parametrize("count", [2, 6])
def test_independent_methods_cost_what_sidak_says(count):
    joint = JointTest(np.eye(count), [np.inf] * count)
    assert joint.level(0.95) == pytest.approx(0.95 ** (1 / count), abs=2e-3)
    assert joint.p(0.01) == pytest.approx(1 - 0.99**count, abs=5e-3)


def test_methods_that_are_one_cost_nothing():
    joint = JointTest(np.ones((5, 5)), [1e9] * 5)
    # chance is drawn for each error by itself, which matters for few degrees of freedom alone
    assert joint.level(0.95) == pytest.approx(0.95, abs=4e-3)


def test_max_t_is_dunnetts_test():
    """Against SciPy's, of three groups and a control of equal size and variance."""
    rng = np.random.default_rng(0)
    control, *others = rng.normal(0, 1, (4, 200))
    right = stats.dunnett(*others, control=control)
    correlation = np.full((3, 3), 0.5) + 0.5 * np.eye(3)
    joint = JointTest(correlation, [np.inf] * 3)
    single = 2 * stats.norm.sf(np.abs(right.statistic))
    for alone, together in zip(single, right.pvalue, strict=True):
        assert joint.p(alone) == pytest.approx(together, abs=0.015)


def weights(rng: np.random.Generator, count: int, resamples: int = 5) -> np.ndarray:
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)


def test_auroc_is_scikit_learns_with_ties_and_weights():
    rng = np.random.default_rng(1)
    positive, scores = rng.random(80) < 0.4, rng.integers(0, 12, 80) / 12
    drawn = weights(rng, 80)
    right = [roc_auc_score(positive, scores, sample_weight=row) for row in drawn]
    assert auroc(positive, scores, drawn) == pytest.approx(right)
    assert np.isnan(auroc(np.ones(3, bool), scores[:3], np.ones((1, 3)))).all()


def test_macro_auroc_and_brier_are_scikit_learns():
    rng = np.random.default_rng(2)
    labels, p = np.arange(90) % 3, rng.dirichlet([1, 1, 1], 90)
    once = np.ones((1, 90))
    right = roc_auc_score(labels, p, multi_class="ovr")
    assert macro_auroc(labels, p, once)[0] == pytest.approx(right)
    truth = np.eye(3)[labels]
    assert brier(labels, p, once)[0] == pytest.approx(((p - truth) ** 2).sum() / 90)


def test_calibration_error_by_hand():
    p = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    labels = np.array([0] * 9 + [1] + [0] * 3 + [1] * 7)
    assert expected_calibration_error(labels, p) == pytest.approx(0.5 * 0.0 + 0.5 * 0.3)


@pytest.mark.parametrize("wanted", [0.0, 0.5, 0.9, 1.0])
def test_a_threshold_keeps_the_specificity(wanted):
    rng = np.random.default_rng(3)
    diseased, scores = np.arange(100) % 2 == 0, rng.random(100)
    at = threshold_at_specificity(diseased, scores, wanted)
    once = np.ones((1, 100))
    assert specificity(diseased, scores, at, once)[0] >= wanted
    assert specificity(diseased, scores, at, once)[0] <= wanted + 0.02
    hits = (scores >= at)[diseased].mean()
    assert sensitivity(diseased, scores, at, once)[0] == pytest.approx(hits)


def arms(rng: np.random.Generator, methods: int, trainings: int, patients: int = 120):
    """Labels, predictions and probabilities of methods that are equal in truth."""
    labels = np.arange(patients) % 3
    difficulty = rng.normal(0, 1, patients)
    found = {}
    for number in range(methods):
        logits = rng.normal(0, 1, (trainings, patients, 3))
        logits[:, np.arange(patients), labels] += 2 + difficulty
        p = np.exp(logits)
        found["real" if number == 0 else f"m{number}"] = p / p.sum(axis=2, keepdims=True)
    return labels, found, [str(index) for index in range(patients)]


def test_joint_intervals_are_wider_than_single_ones_and_narrower_than_bonferronis():
    rng = np.random.default_rng(4)
    labels, p, groups = arms(rng, 7, 3)
    found = Resampled(
        labels,
        {method: rows.argmax(axis=2) for method, rows in p.items()},
        groups,
        classes=3,
        normal=0,
        probabilities=p,
        resamples=500,
    ).against("real")
    ps = []
    for method in list(p)[1:]:
        d = found[method].differences["macro_f2"]
        assert d.joint_low < d.low < d.delta < d.high < d.joint_high
        bonferroni = Estimate(value=d.delta, error=d.error, df=d.df).interval(1 - 0.05 / 6)
        assert d.joint_high < bonferroni[1] + 1e-3
        assert d.p <= d.p_joint <= 1 and d.p <= d.p_holm <= min(1, 6 * d.p)
        ps.append(d.p)
    assert [found[m].differences["macro_f2"].p_holm for m in list(p)[1:]] == pytest.approx(holm(ps))
    assert {"macro_auroc", "disease_auroc", "brier"} <= set(found["m1"].differences)
    assert "sensitivity" not in found["m1"].rates


def test_with_one_method_there_is_nothing_to_correct():
    rng = np.random.default_rng(5)
    labels, p, groups = arms(rng, 2, 3)
    found = compare_methods(
        labels, {m: rows.argmax(axis=2) for m, rows in p.items()}, groups, classes=3, resamples=300
    )["m1"].differences["fnr"]
    assert (found.joint_low, found.joint_high) == (found.low, found.high)
    assert found.p_joint == found.p_holm == found.p


def test_differences_are_paired_by_draw_of_training_patients():
    """Draws move both methods alike: paired, the effect is seen, which seeds alone would hide."""
    rng = np.random.default_rng(6)
    patients, draws = 300, 6
    labels = np.arange(patients) % 3
    quality = np.repeat(rng.normal(0, 0.8, draws), 2)[:, None]  # of each draw, for two seeds

    def predictions(gain: float) -> np.ndarray:
        right = rng.random((2 * draws, patients)) < 1 / (1 + np.exp(-(1 + quality + gain)))
        return np.where(right, labels, (labels + 1) % 3)

    rows = {"real": predictions(0.0), "better": predictions(0.5)}
    groups = [str(index) for index in range(patients)]
    paired, alone = (
        compare_methods(labels, rows, groups, classes=3, draws=count, resamples=500)[
            "better"
        ].differences["macro_f2"]
        for count in (draws, 1)
    )
    assert paired.delta == pytest.approx(alone.delta)
    assert paired.high - paired.low < 0.7 * (alone.high - alone.low)
    assert paired.low > 0 > alone.low
    by_draw = np.array(
        [[np.mean(row == labels) for row in rows[name]] for name in ("better", "real")]
    )
    difference = (by_draw[0] - by_draw[1]).reshape(draws, 2).mean(axis=1)
    accuracy = compare_methods(labels, rows, groups, classes=3, draws=draws, resamples=500)[
        "better"
    ].differences["accuracy"]
    assert accuracy.delta == pytest.approx(difference.mean())
    assert accuracy.error >= stats.sem(difference) * 0.99


def test_rates_hold_for_other_draws_of_training_patients():
    """Two draws that differ are two, however many trainings each has."""
    patients = 400
    labels = np.arange(patients) % 3
    rng = np.random.default_rng(7)
    shares = np.repeat([0.6, 0.8], 10)[:, None]
    rows = np.where(rng.random((20, patients)) < shares, labels, (labels + 1) % 3)
    groups = [str(index) for index in range(patients)]
    low, high = compare_methods(labels, {"real": rows}, groups, classes=3, draws=2, resamples=300)[
        "real"
    ].intervals["accuracy"]
    assert low < 0.2 and high > 0.95  # t of one degree of freedom


def test_a_brier_score_may_be_as_large_as_two():
    labels = np.arange(40) % 2
    wrong = np.stack([np.eye(2)[1 - labels] * 0.998 + 0.001] * 2)
    right = 1 - wrong
    found = Resampled(
        labels,
        {"real": right.argmax(axis=2), "wrong": wrong.argmax(axis=2)},
        [str(index) for index in range(40)],
        classes=2,
        probabilities={"real": right, "wrong": wrong},
        resamples=100,
    ).against("real")["wrong"]
    low, high = found.intervals["brier"]
    assert 1.9 < low <= found.rates["brier"] <= high + 1e-9
    difference = found.differences["brier"]
    assert 1.9 < difference.low <= difference.delta <= difference.high + 1e-9
