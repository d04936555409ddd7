"""Intervals over trainings and patients: the formulas, what they cover, where there are none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from gemix.core.errors import DataError
from gemix.evaluation.classification.bootstrap import compare_methods
from gemix.evaluation.classification.mrmc import difference_of_methods, mean_over_trainings
from tests.bench.coverage import coverage


def test_the_mean_of_trainings_without_patients_variance_is_students():
    values = np.array([0.8, 0.84, 0.9, 0.82])
    found = mean_over_trainings(values, np.zeros((4, 4)))
    assert found.df == pytest.approx(3)
    right = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert found.interval() == pytest.approx(right)


def test_the_difference_of_trainings_without_patients_variance_is_welchs():
    first, second = np.array([0.8, 0.84, 0.9, 0.82]), np.array([0.7, 0.9, 0.6, 0.75])
    found = difference_of_methods(first, second, np.zeros((8, 8)))
    right = stats.ttest_ind(first, second, equal_var=False)
    assert found.p == pytest.approx(right.pvalue)
    assert found.interval() == pytest.approx(tuple(right.confidence_interval()))


def test_what_patients_make_two_trainings_share_is_not_averaged_away():
    # variance 4e-4 of each training, of which 1e-4 are shared within a method and none between
    block = np.full((2, 2), 1e-4) + np.diag([3e-4] * 2)
    covariance = np.block([[block, np.zeros((2, 2))], [np.zeros((2, 2)), block]])
    first, second = np.array([0.81, 0.85]), np.array([0.7, 0.74])  # variance 8e-4 each
    found = difference_of_methods(first, second, covariance)
    total = 16e-4 + 2 * 2e-4
    assert found.error == pytest.approx(math.sqrt(total / 2))
    assert found.df == pytest.approx(total**2 / (2 * (8e-4) ** 2))
    assert found.value == pytest.approx(0.11)


def test_trainings_that_agree_by_chance_vary_no_less_than_patients_make_them():
    block = np.full((2, 2), 1e-4) + np.diag([3e-4] * 2)
    found = mean_over_trainings(np.array([0.8, 0.8]), block)
    assert found.error == pytest.approx(math.sqrt((3e-4 + 2 * 1e-4) / 2))


def test_patients_alone_leave_a_normal_interval():
    same = np.full((2, 2), 1e-4)
    found = mean_over_trainings(np.array([0.8, 0.8]), same)
    assert found.df == math.inf
    assert found.interval() == pytest.approx((0.8 - 1.96e-2, 0.8 + 1.96e-2), abs=1e-5)


def test_generators_are_the_readers_where_trainings_are_nested_in_them():
    """Without variance of patients: Welch's test of the trainings against the generators' means."""
    rng = np.random.default_rng(0)
    real, made = rng.normal(0.8, 0.02, 6), rng.normal(0.8, 0.02, 6) + [0.1, -0.1, 0.05] * 2
    means = made.reshape(2, 3).mean(axis=0)
    found = difference_of_methods(means, real, np.zeros((9, 9)))
    right = stats.ttest_ind(means, real, equal_var=False)
    assert (found.p, found.value) == pytest.approx((right.pvalue, means.mean() - real.mean()))
    above = stats.ttest_ind(means, real, equal_var=False, alternative="greater")
    assert found.not_above_zero == pytest.approx(above.pvalue)


def test_intervals_hold_for_other_generators_where_there_are_three():
    for held, claimed in coverage(100, 6, 120, resamples=200, generators=3).values():
        assert held >= 0.9
        assert claimed <= 0.1
    with pytest.raises(DataError, match=r"m: 4 trainings, 1 draw.* 3 generators"):
        rows = np.zeros((4, 9), int)
        few = {"real": rows, "m": rows}
        compare_methods(np.arange(9) % 3, few, [*"abcdefghi"], classes=3, generators={"m": 3})


@pytest.mark.parametrize(("patients", "seeds"), [(400, 2), (60, 3)])
def test_intervals_of_equal_methods_hold_zero_as_often_as_they_say(patients, seeds):
    for held, claimed in coverage(patients, seeds, 120, resamples=200).values():
        assert held >= 0.9  # resampling seeds too gives 0.78 for 400 patients and 2 seeds
        assert claimed <= 0.1


@pytest.mark.parametrize(("sick", "p"), [(1, 1.0), (2, 0.5), (3, 0.25)])
@pytest.mark.parametrize("seeds", [1, 2])
def test_few_patients_show_nothing_whatever_they_do(sick, p, seeds):
    labels = np.repeat([1] * sick + [0] * (20 - sick), 3)
    groups = [f"p{index}" for index in np.repeat(np.arange(20), 3)]
    arms = {"real": np.stack([labels] * seeds), "misses all": np.zeros((seeds, 60), int)}
    found = compare_methods(labels, arms, groups, classes=2, normal=0)["misses all"]
    missed = found.differences["missed_disease_rate"]
    assert (missed.delta, missed.low, missed.high) == (1, -1, 1)
    assert missed.p == pytest.approx(p)
    assert found.intervals["missed_disease_rate"] == (0, 1)
    # nor do averages over the classes, of which this is one
    assert (found.differences["macro_f2"].low, found.differences["macro_f2"].high) == (-1, 1)
    assert found.differences["accuracy"].low > -1


def test_intervals_stay_within_what_a_rate_can_be():
    labels = np.repeat(np.arange(3), 30)
    groups = [str(index) for index in range(90)]
    good = labels.copy()
    good[0] = 1
    arms = {"real": np.stack([good, labels]), "m": np.stack([labels, good])}
    found = compare_methods(labels, arms, groups, classes=3)
    for comparison in found.values():
        for low, high in comparison.intervals.values():
            assert 0 <= low <= high <= 1
