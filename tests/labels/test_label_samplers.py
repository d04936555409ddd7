"""Soft labels: the equations, and the contract that every sampler passes."""

from __future__ import annotations

import numpy as np
import pytest

from gemix.core.config_schema import InvalidConfig
from gemix.core.errors import DataError
from gemix.labels import SAMPLERS, LabelConfig, check_labels, sample_labels

EVERY = pytest.mark.parametrize("method", sorted(SAMPLERS))


def draw(method: str, count: int = 2000, classes: int = 3, seed: int = 0, start: int = 0, **config):
    return sample_labels(
        method, LabelConfig(**config), count=count, classes=classes, seed=seed, start=start
    )


@EVERY
@pytest.mark.parametrize("classes", [2, 3, 20])
@pytest.mark.parametrize("temperature", [1e-3, 0.5, 1e3])
def test_contract_labels_are_distributions(method, classes, temperature):
    theta, dominant = draw(method, classes=classes, temperature=temperature)
    assert theta.shape == (2000, classes) and theta.dtype == np.float32
    assert np.isfinite(theta).all() and (theta >= 0).all()
    assert np.abs(theta.sum(axis=1, dtype=np.float64) - 1).max() < 1e-6
    assert dominant.min() >= 0 and dominant.max() < classes


@EVERY
def test_contract_seeded_and_the_same_in_any_cut(method):
    theta, dominant = draw(method, count=9000)
    assert np.array_equal(draw(method, count=9000)[0], theta)
    assert not np.array_equal(draw(method, count=9000, seed=1)[0], theta)
    for start, count in [(0, 10), (4090, 12), (8191, 3), (5000, 4000)]:
        part, classes = draw(method, count=count, start=start)
        np.testing.assert_array_equal(part, theta[start : start + count])
        np.testing.assert_array_equal(classes, dominant[start : start + count])


@EVERY
def test_contract_the_dominant_class_follows_its_weights(method):
    _, dominant = draw(method, count=20000)
    np.testing.assert_allclose(np.bincount(dominant) / 20000, 1 / 3, atol=0.02)
    if method != "dirichlet_pair":
        _, dominant = draw(method, count=20000, class_weights=(1, 0, 3))
        np.testing.assert_allclose(np.bincount(dominant) / 20000, [0.25, 0, 0.75], atol=0.02)


@EVERY
def test_contract_the_dominant_class_leads_on_average(method):
    theta, dominant = draw(method, count=20000)
    for k in range(3):
        means = theta[dominant == k].mean(axis=0)
        assert means.argmax() == k


@pytest.mark.parametrize(("temperature", "bias"), [(1.0, 2.0), (0.5, 1.0), (2.0, -1.0)])
def test_softmax_without_noise_is_the_closed_form(temperature, bias):
    theta, dominant = draw("softmax", noise_std=0, temperature=temperature, bias=bias)
    weight = np.exp(bias / temperature)
    expected = np.where(np.eye(3)[dominant] > 0, weight, 1) / (weight + 2)
    np.testing.assert_allclose(theta, expected, rtol=1e-5)


def test_softmax_is_the_softmax_of_biased_normals():
    theta, dominant = draw("softmax", count=50000, temperature=0.7, bias=1.5, noise_std=2)
    logits = np.log(theta.astype(np.float64)) * 0.7
    rows = np.arange(len(theta))
    others = logits[rows, (dominant + 1) % 3], logits[rows, (dominant + 2) % 3]
    # differences of logits are normal: b + N(0, 2 sigma^2), and N(0, 2 sigma^2)
    assert np.mean(logits[rows, dominant] - others[0]) == pytest.approx(1.5, abs=0.05)
    assert np.std(others[0] - others[1]) == pytest.approx(2 * np.sqrt(2), abs=0.05)


def test_temperature_runs_from_one_hot_to_uniform():
    assert draw("softmax", temperature=1e-3)[0].max(axis=1).mean() > 0.999
    assert draw("softmax", temperature=1e3)[0].max(axis=1).mean() < 0.335


def test_dirichlet_has_the_moments_of_its_concentrations():
    theta, dominant = draw("dirichlet", count=50000)
    share = theta[np.arange(len(theta)), dominant]
    assert share.mean() == pytest.approx(2 / 4, abs=0.01)
    assert share.var() == pytest.approx(2 * 2 / (16 * 5), abs=0.003)


def test_the_pair_blends_two_classes():
    settings = {"dirichlet_dominant": 1e5, "dirichlet_other": 0.05}
    theta, _ = draw("dirichlet_pair", count=20000, **settings)
    top_two = np.sort(theta, axis=1)[:, -2:]
    assert top_two.sum(axis=1).min() > 0.99
    # lambda ~ Beta(1, 1): the smaller share is uniform on 0 to 1/2
    assert top_two[:, 0].mean() == pytest.approx(0.25, abs=0.01)


def test_onehot_is_the_identity():
    theta, dominant = draw("onehot")
    np.testing.assert_array_equal(theta, np.eye(3)[dominant])


@pytest.mark.parametrize(("classes", "config"), [(1, {}), (3, {"class_weights": (1, 2)})])
def test_labels_that_cannot_be_drawn(classes, config):
    with pytest.raises(DataError):
        draw("softmax", classes=classes, **config)


@pytest.mark.parametrize(
    "config", [{"temperature": 0}, {"noise_std": -1}, {"class_weights": (0, 0)}, {"bias": 1e999}]
)
def test_bad_parameters_are_refused(config):
    with pytest.raises(InvalidConfig):
        LabelConfig(**config)


def test_check_labels_takes_distributions_only():
    assert check_labels(np.array([0.7, 0.2, 0.1]), 3).shape == (1, 3)
    with pytest.raises(DataError, match=r"sums to 1\.1"):
        check_labels(np.array([0.7, 0.2, 0.2]), 3)
    with pytest.raises(DataError, match="0 or more"):
        check_labels(np.array([1.2, -0.2]), 2)
    with pytest.raises(DataError, match="2 weights"):
        check_labels(np.array([0.5, 0.5]), 3)
