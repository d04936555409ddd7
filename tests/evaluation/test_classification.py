"""Rates against scikit-learn, on predictions of every kind of gap."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn

from gemix.core.errors import DataError
from gemix.evaluation.classification.normal_class import describe_normal_class, normal_class
from gemix.evaluation.classification.rates import (
    chance_macro_f2,
    class_rates,
    confusion_matrix,
    rates,
    score,
)


def random_case(seed: int, classes: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions that agree about half of the time."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=count)
    guesses = rng.integers(classes, size=count)
    return labels, np.where(rng.random(count) < 0.5, labels, guesses)


CASES = {
    "three classes": random_case(0, 3, 200),
    "two classes": random_case(1, 2, 40),
    "a class never predicted": (np.array([0, 1, 2, 2, 1]), np.array([0, 1, 1, 0, 1])),
    "a class without images": (np.array([0, 1, 1, 0]), np.array([0, 2, 1, 1])),
    "all wrong": (np.array([0, 1, 2]), np.array([1, 2, 0])),
    "one class predicted": (np.array([0, 1, 2, 0]), np.array([1, 1, 1, 1])),
}


@pytest.mark.parametrize("case", CASES)
def test_rates_equal_scikit_learn(case):
    labels, predictions = CASES[case]
    found = score(labels, predictions, classes=3)
    options = {"labels": np.unique(labels), "average": "macro", "zero_division": 0}
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(labels, predictions))
    for name, function in {
        "macro_precision": sklearn.precision_score,
        "macro_recall": sklearn.recall_score,
        "macro_f1": sklearn.f1_score,
    }.items():
        assert found[name] == pytest.approx(function(labels, predictions, **options)), name
    f2 = sklearn.fbeta_score(labels, predictions, beta=2, **options)
    assert found["macro_f2"] == pytest.approx(f2)
    assert found["fnr"] == pytest.approx(1 - found["macro_recall"])


@pytest.mark.parametrize("case", CASES)
def test_class_rates_and_confusion_equal_scikit_learn(case):
    labels, predictions = CASES[case]
    confusion = confusion_matrix(labels, predictions, 3)
    expected = sklearn.confusion_matrix(labels, predictions, labels=[0, 1, 2])
    np.testing.assert_array_equal(confusion, expected)
    present = np.unique(labels)
    found = class_rates(confusion)
    options = {"labels": present, "average": None, "zero_division": 0}
    np.testing.assert_allclose(
        found.recall[present], sklearn.recall_score(labels, predictions, **options)
    )
    np.testing.assert_allclose(
        found.precision[present], sklearn.precision_score(labels, predictions, **options)
    )
    absent = np.setdiff1d([0, 1, 2], present)
    assert np.isnan(found.recall[absent]).all()


def test_a_batch_of_matrices_gives_what_each_gives_alone():
    rng = np.random.default_rng(2)
    batch = rng.integers(0, 9, size=(4, 5, 3, 3))
    together = rates(batch, normal=1)
    for index in np.ndindex(4, 5):
        alone = rates(batch[index], normal=1)
        for name, value in alone.items():
            assert together[name][index] == pytest.approx(float(value), nan_ok=True)


def test_missed_disease_is_disease_predicted_normal():
    labels = np.array([0, 0, 1, 1, 1, 2, 2])
    predictions = np.array([1, 0, 0, 1, 2, 0, 2])
    assert score(labels, predictions, 3, normal=0)["missed_disease_rate"] == pytest.approx(2 / 5)
    assert score(labels, predictions, 3, normal=2)["missed_disease_rate"] == pytest.approx(1 / 5)
    assert score(labels, predictions, 3)["missed_disease_rate"] is None
    assert score(labels[:2], predictions[:2], 3, normal=0)["missed_disease_rate"] is None


@pytest.mark.parametrize(
    ("classes", "name", "expected"),
    [
        (("covid", "Normal cases", "pneumonia"), None, 1),
        (("abnormal", "NORMAL"), None, 1),
        (("abnormal", "other"), None, None),
        (("normal left", "normal right"), None, None),
        (("normal", "healthy"), "healthy", 1),
        (("normal", "healthy"), None, None),
        (("covid", "non-normal"), None, None),
        (("Non-normal", "Healthy"), None, 1),
        (("not normal", "healthy"), None, 1),
        (("NotNormal", "ok"), None, None),
        (("normalised", "covid"), None, None),
        (("normal", "not_normal"), None, 0),
        (("NORMAL", "NonNormal"), None, 0),
        (("nonNormal", "nonnormal", "ab-normal", "unhealthy", "isn't normal"), None, None),
        (("covid", "healthyControls"), None, 1),
        (("covid", "normal (no finding)"), None, 1),
        (("near normal", "NORMALLung"), None, 1),
        (("no finding", "covid"), None, None),
    ],
)
def test_the_normal_class_is_found_by_name(classes, name, expected):
    assert normal_class(classes, name) == expected


def test_the_choice_of_the_normal_class_is_told_with_its_setting():
    told = describe_normal_class(("covid", "Normal"), 1)
    assert told == "healthy class: Normal (data.normal_class)"
    told = describe_normal_class(("covid", "ok"), None)
    assert "none of covid, ok" in told and "set data.normal_class" in told


def test_guessing_expects_a_macro_f2_of_one_over_the_classes():
    rng = np.random.default_rng(0)
    shares = np.array([0.7, 0.2, 0.1])
    labels = rng.choice(3, size=200_000, p=shares)
    for guess in (shares, np.full(3, 1 / 3), np.eye(3)[0]):
        found = score(labels, rng.choice(3, size=len(labels), p=guess), 3)["macro_f2"]
        assert found < chance_macro_f2(3) + 0.004
    best = score(labels, rng.choice(3, size=len(labels), p=shares), 3)["macro_f2"]
    assert best == pytest.approx(chance_macro_f2(3), abs=0.004)


def test_bad_input_is_named():
    with pytest.raises(DataError, match="'helthy' is none of the classes: healthy, sick"):
        normal_class(("healthy", "sick"), "helthy")
    with pytest.raises(DataError, match="from 0 to 3, want 0 to 2"):
        score(np.array([0, 3]), np.array([0, 1]), 3)
    with pytest.raises(DataError, match="one of each an image"):
        score(np.array([0, 1]), np.array([0]), 3)
