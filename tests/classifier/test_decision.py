"""Temperature scaling and rules of decision."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import scipy.optimize
from scipy.special import log_softmax, softmax

from gemix.classifier.decision.base import ScoredImages
from gemix.classifier.decision.config import DecisionConfig
from gemix.classifier.decision.decision import Decision, check_rule
from gemix.classifier.decision.registry import RULES, load_rule
from gemix.classifier.decision.testing import check_contract, scored_images
from gemix.core.errors import DataError


def outputs(seed=0, patients=60, temperature=1.0, separation=1.5):
    """Logits that are calibrated at a temperature, for three classes; 0 is the healthy one."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"p{index}" for index in range(patients)], 5)
    logits = rng.normal(size=(len(groups), 3)) * separation
    labels = np.array([rng.choice(3, p=softmax(row)) for row in logits])
    return (logits * temperature).astype(np.float32), labels, groups


@pytest.mark.parametrize("name", RULES)
def test_each_rule_keeps_the_contract(name):
    check_contract(name)


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_is_that_which_made_the_logits(true):
    logits, labels, groups = outputs(patients=600, temperature=true)
    found = Decision.fit(logits, labels, groups, 0, DecisionConfig())
    assert found.temperature == pytest.approx(true, rel=0.1)
    # the optimum, by another optimizer
    rows = np.arange(len(labels))
    right = scipy.optimize.minimize(
        lambda t: -log_softmax(logits / t[0], axis=1)[rows, labels].mean(), [1.0]
    )
    assert found.temperature == pytest.approx(right.x[0], rel=1e-3)


def test_it_changes_no_class_and_can_be_left_out():
    logits, labels, groups = outputs(temperature=4.0)
    found = Decision.fit(logits, labels, groups, 0, DecisionConfig())
    probabilities = found.probabilities(logits)
    np.testing.assert_allclose(
        probabilities, softmax(logits / found.temperature, axis=1), atol=1e-6
    )
    np.testing.assert_array_equal(found.decide(probabilities), logits.argmax(axis=1))
    plain = Decision.fit(logits, labels, groups, 0, DecisionConfig(calibrate=False))
    assert plain.temperature == 1


def test_images_that_are_all_right_leave_a_finite_temperature():
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2] * 5] * 9
    found = Decision.fit(logits, logits.argmax(axis=1), ["a"] * 15, 0, DecisionConfig())
    assert 0.05 <= found.temperature <= 1
    assert np.isfinite(found.probabilities(logits)).all()


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_the_rule_of_specificity_keeps_it_and_misses_least(level):
    images = scored_images(3)
    at = load_rule("specificity")(images, level)
    healthy = images.scores[~images.is_diseased]
    assert (healthy < at).mean() >= level
    needed = healthy[healthy < at].max()
    assert (healthy < needed).mean() < level
    assert not ((images.scores > needed) & (images.scores < at)).any()


def test_the_rule_of_sensitivity_by_hand():
    """Nine patients of one image: at 0.8 a single one may be missed, (9 / 10) (1 / 9) + 1 / 10."""
    scores = np.arange(1.0, 10.0) / 10
    images = ScoredImages(
        scores=scores, is_diseased=np.ones(9, bool), groups=np.array([f"p{i}" for i in range(9)])
    )
    assert load_rule("sensitivity")(images, 0.8) == pytest.approx(0.15)
    assert load_rule("sensitivity")(images, 0.9) == 0.1
    assert load_rule("sensitivity")(images, 0.5) == pytest.approx(0.45)


def test_the_rule_of_sensitivity_holds_for_new_patients():
    """In the mean over validation sets the sensitivity of new patients is the level or more."""
    level, found = 0.8, []
    for seed in range(200):
        at = load_rule("sensitivity")(scored_images(seed, patients=30), level)
        new = scored_images(10_000 + seed, patients=400)
        found.append((new.scores[new.is_diseased] >= at).mean())
    error = np.std(found) / np.sqrt(len(found))
    assert level - 2 * error < np.mean(found) < level + 0.08


def test_patients_count_alike_however_many_images_they_have():
    """One patient of 90 images that are missed is one of ten patients."""
    scores = np.concatenate([np.full(90, 0.1), np.full(9, 0.9)])
    groups = np.array(["a"] * 90 + [f"p{index}" for index in range(9)])
    images = ScoredImages(scores=scores, is_diseased=np.ones(99, bool), groups=groups)
    assert load_rule("sensitivity")(images, 0.8) == 0.5


def test_from_the_threshold_on_an_image_is_diseased():
    decision = Decision(normal=0, threshold=0.3)
    probabilities = np.array([[0.75, 0.2, 0.05], [0.65, 0.15, 0.2], [0.1, 0.6, 0.3]], np.float32)
    np.testing.assert_array_equal(decision.decide(probabilities), [0, 2, 1])


@pytest.mark.parametrize("rule", ["specificity", "sensitivity"])
def test_images_of_which_a_network_is_sure_are_told_apart(rule):
    """In float32 their probabilities of disease are 1, all of them."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    logits = rng.normal(size=(120, 3)) + 25 * np.eye(3)[labels]
    config = DecisionConfig(rule=rule, level=0.9, calibrate=False)
    found = Decision.fit(logits, labels, [f"p{n}" for n in range(120)], 0, config)
    assert 0 < found.threshold < 1
    probabilities = found.probabilities(logits)
    right = found.decide(probabilities)
    share = (
        (right == 0)[labels == 0].mean()
        if rule == "specificity"
        else (right > 0)[labels > 0].mean()
    )
    assert 0.9 <= share < 1
    # rounding of another device moves nobody across
    for step in (-np.inf, np.inf):
        np.testing.assert_array_equal(found.decide(np.nextafter(probabilities, step)), right)


@pytest.mark.parametrize(
    ("config", "normal", "words"),
    [
        (DecisionConfig(rule="specificity"), None, "data.normal_class"),
        (DecisionConfig(rule="sensitivity", level=0.99), 0, "needs 99 diseased patients"),
    ],
)
def test_what_the_images_cannot_support_is_said_before_training(config, normal, words):
    _, labels, groups = outputs(patients=20)
    with pytest.raises(DataError, match=words):
        check_rule(config, labels, groups, normal)


def test_without_the_sick_there_is_no_sensitivity():
    with pytest.raises(DataError, match="no validation image is of a disease"):
        check_rule(DecisionConfig(rule="sensitivity"), np.array([0, 0]), ["a", "b"], 0)


def test_without_the_healthy_there_is_no_specificity():
    with pytest.raises(DataError, match="no validation image is of the healthy class"):
        check_rule(DecisionConfig(rule="specificity"), np.array([1, 2, 1]), ["a", "b", "c"], 0)


@pytest.mark.parametrize("rule", RULES)
def test_it_comes_back_as_it_was(rule):
    logits, labels, groups = outputs()
    found = Decision.fit(logits, labels, groups, 0, DecisionConfig(rule=rule, level=0.8))
    again = Decision.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    np.testing.assert_array_equal(
        again.decide(again.probabilities(logits)), found.decide(found.probabilities(logits))
    )


@pytest.mark.parametrize("change", [{"temperature": 0}, {"temperature": "x"}, {"threshold": "y"}])
def test_a_damaged_one_is_refused(change):
    with pytest.raises((ValueError, TypeError)):
        Decision.from_json(dataclasses.asdict(Decision()) | change)
