"""The bootstrap: what it must equal, what it must cover, what must widen it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from gemix.core.errors import DataError
from gemix.evaluation.classification.bootstrap import (
    Resampled,
    compare_methods,
    groups_by_class,
    warn_of_few_groups,
)
from gemix.evaluation.classification.rates import score


def patients(
    rng: np.random.Generator, count: int, slices: int, accuracy: float, together: bool = False
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels, predictions and patients; `together`: all slices of one are right or wrong."""
    labels = np.repeat(np.arange(count) % 3, slices)
    shape = (count, 1) if together else (count, slices)
    right = np.broadcast_to(rng.random(shape) < accuracy, (count, slices)).ravel()
    groups = [f"p{index}" for index in np.repeat(np.arange(count), slices)]
    return labels, np.where(right, labels, (labels + 1) % 3), groups


def width(interval: tuple[float, float]) -> float:
    return interval[1] - interval[0]


def test_rates_are_means_over_seeds_and_lie_in_their_intervals():
    rng = np.random.default_rng(0)
    labels, first, groups = patients(rng, 30, 4, 0.7)
    _, second, _ = patients(rng, 30, 4, 0.6)
    found = compare_methods(
        labels, {"real": np.stack([first, second])}, groups, classes=3, normal=0
    )
    scores = [score(labels, row, 3, normal=0) for row in (first, second)]
    for name, value in found["real"].rates.items():
        assert value == pytest.approx(np.mean([s[name] for s in scores])), name
        low, high = found["real"].intervals[name]
        assert low < value < high
    assert found["real"].confusion.sum() == 2 * len(labels)
    assert found["real"].differences == {}


def test_slices_of_a_patient_are_resampled_together():
    rng = np.random.default_rng(1)
    labels, predictions, groups = patients(rng, 40, 8, 0.7, together=True)
    by_patient = compare_methods(labels, {"real": predictions[None]}, groups, classes=3)
    alone = [str(index) for index in range(len(labels))]
    by_image = compare_methods(labels, {"real": predictions[None]}, alone, classes=3)
    # 8 identical slices are worth one: intervals are sqrt(8) times as wide
    ratio = width(by_patient["real"].intervals["accuracy"]) / width(
        by_image["real"].intervals["accuracy"]
    )
    assert ratio == pytest.approx(8**0.5, rel=0.15)


def test_the_interval_of_accuracy_is_that_of_a_mean():
    rng = np.random.default_rng(2)
    labels, predictions, groups = patients(rng, 400, 1, 0.8)
    low, high = compare_methods(labels, {"real": predictions[None]}, groups, classes=3)[
        "real"
    ].intervals["accuracy"]
    mean = (predictions == labels).mean()
    half = 1.96 * (mean * (1 - mean) / 400) ** 0.5
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.008)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng, inside = np.random.default_rng(3), 0
    for _ in range(120):
        labels, predictions, groups = patients(rng, 60, 3, 0.7, together=True)
        found = compare_methods(
            labels, {"real": predictions[None]}, groups, classes=3, resamples=400
        )
        low, high = found["real"].intervals["fnr"]
        inside += low <= 0.3 <= high
    assert 0.88 <= inside / 120 <= 0.99


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(4)
    labels, good, groups = patients(rng, 200, 1, 0.9)
    _, poor, _ = patients(rng, 200, 1, 0.5)
    apart = compare_methods(labels, {"real": np.stack([good, poor])}, groups, classes=3)["real"]
    alike = compare_methods(labels, {"real": np.stack([good, good])}, groups, classes=3)["real"]
    assert width(apart.intervals["macro_f2"]) > 2.5 * width(alike.intervals["macro_f2"])


def test_differences_are_paired_and_p_values_tell_effect_from_none():
    rng = np.random.default_rng(5)
    labels, real, groups = patients(rng, 150, 1, 0.6)
    better = np.where(rng.random(150) < 0.5, labels, real)
    found = compare_methods(
        labels,
        {"real": real[None], "same": real[None], "better": better[None]},
        groups,
        classes=3,
    )
    same, gain = found["same"].differences["macro_f2"], found["better"].differences["macro_f2"]
    assert (same.delta, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert gain.delta == pytest.approx(
        found["better"].rates["macro_f2"] - found["real"].rates["macro_f2"]
    )
    assert 0 < gain.low < gain.delta < gain.high
    assert gain.p == pytest.approx(2 / 2001)
    assert found["better"].differences["fnr"].high < 0
    # paired: narrower than what two independent intervals allow
    assert width((gain.low, gain.high)) < width(found["real"].intervals["macro_f2"])


def test_p_values_are_even_where_there_is_no_effect():
    rng, values = np.random.default_rng(6), []
    for _ in range(120):
        labels, first, groups = patients(rng, 90, 2, 0.7)
        _, second, _ = patients(rng, 90, 2, 0.7)
        found = compare_methods(
            labels, {"real": first[None], "m": second[None]}, groups, classes=3, resamples=400
        )
        values.append(found["m"].differences["accuracy"].p)
    assert 0.005 <= np.mean(np.array(values) < 0.05) <= 0.12
    assert 0.35 <= np.mean(np.array(values) < 0.5) <= 0.65


def test_the_same_seed_gives_the_same_numbers_quickly():
    rng = np.random.default_rng(7)
    labels, predictions, groups = patients(rng, 500, 4, 0.7)
    arms = {"real": np.stack([predictions] * 3), "softmax": np.stack([predictions[::-1]] * 3)}
    started = time.process_time()
    first = compare_methods(labels, arms, groups, classes=3, normal=0)
    assert time.process_time() - started < 5
    again = compare_methods(labels, arms, groups, classes=3, normal=0)
    other = compare_methods(labels, arms, groups, classes=3, normal=0, seed=1)
    assert first["softmax"].intervals == again["softmax"].intervals
    assert first["softmax"].intervals != other["softmax"].intervals


def test_what_cannot_be_computed_is_left_out_or_refused():
    labels = np.array([0, 1, 0, 1])
    arms = {"real": labels[None]}
    found = compare_methods(labels, arms, list("aabb"), classes=2)["real"]
    assert "missed_disease_rate" not in found.rates
    assert "missed_disease_rate" not in found.intervals
    with pytest.raises(DataError, match=r"1 patient\(s\) or groups"):
        compare_methods(labels, arms, list("aaaa"), classes=2)
    with pytest.raises(DataError, match="train the missing seeds"):
        compare_methods(labels, arms | {"m": np.stack([labels] * 2)}, list("aabb"), classes=2)


def test_rates_of_a_class_and_macro_rates_are_averaged_over_seeds_alike():
    labels = np.array([0, 0, 0, 1, 1, 1])
    rows = np.array([[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1]])  # precision of class 0: 1, 3/5
    found = compare_methods(labels, {"real": rows}, list("abcdef"), classes=2)["real"]
    np.testing.assert_allclose(found.by_class.precision, [0.8, 1.0])
    np.testing.assert_allclose(found.by_class.recall, [1.0, 2 / 3])
    assert found.rates["macro_precision"] == pytest.approx(found.by_class.precision.mean())
    assert found.rates["macro_recall"] == pytest.approx(found.by_class.recall.mean())


def test_a_class_without_test_images_has_no_rates():
    labels = np.array([0, 1, 0, 1])
    found = compare_methods(labels, {"real": labels[None]}, list("aabb"), classes=3)["real"]
    assert np.isnan(found.by_class.precision[2]) and np.isnan(found.by_class.recall[2])


def test_classes_of_few_patients_are_named_with_the_count():
    labels = np.repeat([0] * 10 + [1] * 9 + [2], 3)
    groups = [f"p{index}" for index in np.repeat(np.arange(20), 3)]
    counts = groups_by_class(labels, groups, ("normal", "covid", "cancer"))
    assert counts == {"normal": 10, "covid": 9, "cancer": 1}
    assert "fewer than 10 test patients or groups: covid (9), cancer (1);" in (
        warn_of_few_groups(counts)
    )
    assert warn_of_few_groups({"normal": 10}) is None


def test_intervals_of_a_class_are_those_of_the_same_resamples():
    rng = np.random.default_rng(0)
    labels, groups = np.arange(120) % 2, [f"p{row // 2}" for row in range(120)]
    predictions = np.where(rng.random((2, 120)) < 0.2, 1 - labels, labels)
    resampled = Resampled(labels, {"real": predictions}, groups, classes=2, normal=0)
    low, high = resampled.against("real")["real"].intervals["missed_disease_rate"]
    assert resampled.by_class("real")[1]["recall"] == pytest.approx((1 - high, 1 - low))


def test_a_class_that_is_always_found_has_an_interval_all_the_same():
    labels, groups = np.arange(60) % 3, [f"p{row}" for row in range(60)]
    predictions = np.where(labels == 2, 1, labels)
    found = Resampled(labels, {"real": predictions[None]}, groups, classes=4).by_class("real")
    least = 0.025 ** (1 / 20)  # Clopper and Pearson for 20 of 20
    assert found[0]["recall"] == pytest.approx((least, 1.0))
    assert found[2]["recall"] == pytest.approx((0.0, 1 - least))
    assert 0 < found[1]["precision"][0] < 0.5 < found[1]["precision"][1] < 1
    assert 3 not in found  # no image
