"""Soft labels: the equations, and the contract that every sampler passes."""

from __future__ import annotations

import numpy as np
import pytest

from gemix.core.config_schema import InvalidConfig
from gemix.core.errors import ConfigError, DataError
from gemix.labels import SAMPLERS, LabelConfig, check_labels, sample_labels
from gemix.labels.softmax import softmax_labels
from gemix.labels.testing import LabelSamplerContract
from gemix.synthesis.config import SynthesisConfig


def draw(method: str, count: int = 2000, classes: int = 3, seed: int = 0, start: int = 0, **config):
    return sample_labels(
        method, LabelConfig(**config), count=count, classes=classes, seed=seed, start=start
    )


@pytest.mark.parametrize("name", SAMPLERS)
class TestEverySampler(LabelSamplerContract):
    @pytest.fixture(autouse=True)
    def _choose(self, name):
        self.sampler = SAMPLERS[name]


@pytest.mark.parametrize("method", sorted(SAMPLERS))
@pytest.mark.parametrize("temperature", [1e-3, 0.5, 1e3])
def test_labels_are_distributions_at_every_temperature(method, temperature):
    theta, _ = draw(method, classes=20, temperature=temperature)
    assert np.isfinite(theta).all() and (theta >= 0).all()
    assert np.abs(theta.sum(axis=1, dtype=np.float64) - 1).max() < 1e-6


@pytest.mark.parametrize("method", sorted(SAMPLERS.keys() - {"dirichlet_pair"}))
def test_the_dominant_class_follows_its_weights(method):
    _, dominant = draw(method, count=20000, class_weights=(1, 0, 3))
    np.testing.assert_allclose(np.bincount(dominant) / 20000, [0.25, 0, 0.75], atol=0.02)


# theta of labels 100 and 101 of seed 7: the draws of a release must not change
DRAWS = {
    "softmax": [[0.38972926, 0.39051613, 0.21975464], [0.52777314, 0.25208363, 0.22014323]],
    "dirichlet": [[0.11615439, 0.069281057, 0.81456453], [0.25552109, 0.59399754, 0.15048139]],
    "dirichlet_pair": [[0.21549831, 0.099978462, 0.68452322], [0.40886816, 0.33739558, 0.25373626]],
    "pair_path": [[0.0, 0.5, 0.5], [0.4, 0.6, 0.0]],
    "onehot": [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]],
}


@pytest.mark.parametrize("method", sorted(DRAWS))
def test_draws_do_not_change(method):
    theta, dominant = draw(method, count=2, seed=7, start=100)
    np.testing.assert_allclose(theta, DRAWS[method], rtol=1e-6)
    assert dominant.tolist() == [2, 1]


def test_a_sampler_that_breaks_the_contract_fails_it():
    class Unnormalized(LabelSamplerContract):
        @staticmethod
        def sampler(*args):
            theta, dominant = softmax_labels(*args)
            return 2 * theta, dominant

    with pytest.raises(AssertionError):
        Unnormalized().test_labels_are_distributions()

    class Global(LabelSamplerContract):
        @staticmethod
        def sampler(rng, count, classes, config):
            return np.random.dirichlet(np.ones(classes), count), rng.integers(classes, size=count)

    with pytest.raises(AssertionError):
        Global().test_labels_are_functions_of_seed_and_index()
    with pytest.raises(AssertionError):
        Global().test_nothing_is_drawn_from_the_global_generator()


def test_the_methods_of_a_synthesis_are_the_registered_samplers():
    assert SynthesisConfig(methods=tuple(SAMPLERS)).methods == tuple(SAMPLERS)
    with pytest.raises(InvalidConfig, match="did you mean 'softmax'"):
        SynthesisConfig(methods=("sofmax",))
    with pytest.raises(ConfigError, match="choose one of softmax, dirichlet"):
        draw("uniform")


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


@pytest.mark.parametrize("steps", [2, 5, 10])
def test_pair_paths_are_evenly_spaced_from_class_to_class(steps):
    theta, dominant = draw("pair_path", count=24000, path_steps=steps)
    assert (np.count_nonzero(theta, axis=1) <= 2).all()
    np.testing.assert_array_equal(theta[np.arange(len(theta)), dominant], theta.max(axis=1))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        other = 3 - first - second
        inner = theta[(theta[:, other] == 0) & (theta[:, [first, second]] > 0).all(axis=1), second]
        counts = [np.isclose(inner, k / (steps - 1)).sum() for k in range(1, steps - 1)]
        assert sum(counts) == len(inner)
        # 3 lines of `steps` points each, all equally frequent
        np.testing.assert_allclose(counts, 24000 / (3 * steps), rtol=0.2)


def test_pair_paths_of_a_small_set_reach_every_step():
    theta, _ = draw("pair_path", count=11, start=1000)
    shares = np.sort(np.sort(theta, axis=1)[:, -2])
    np.testing.assert_allclose(shares, [0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5])


def test_onehot_is_the_identity():
    theta, dominant = draw("onehot")
    np.testing.assert_array_equal(theta, np.eye(3)[dominant])


@pytest.mark.parametrize(("classes", "config"), [(1, {}), (3, {"class_weights": (1, 2)})])
def test_labels_that_cannot_be_drawn(classes, config):
    with pytest.raises(DataError):
        draw("softmax", classes=classes, **config)


@pytest.mark.parametrize(
    "config",
    [
        {"temperature": 0},
        {"noise_std": -1},
        {"bias": 1e999},
        {"class_weights": (0, 0)},
        {"class_weights": (1, -1)},
        {"class_weights": "inverse_recall"},
        {"recall_of": "runs/a/classifiers/real-seed0"},
        {"path_steps": 1},
    ],
)
def test_bad_parameters_are_refused(config):
    with pytest.raises(InvalidConfig):
        LabelConfig(**config)


def test_an_unknown_name_of_class_weights_gets_the_nearest_one():
    with pytest.raises(InvalidConfig, match="did you mean 'inverse_recall'"):
        LabelConfig(class_weights="inverse_recal")
    with pytest.raises(ConfigError, match="give a sampler numbers"):
        draw("softmax", class_weights="real")


def test_check_labels_takes_distributions_only():
    assert check_labels(np.array([0.7, 0.2, 0.1]), 3).shape == (1, 3)
    with pytest.raises(DataError, match=r"sums to 1\.1"):
        check_labels(np.array([0.7, 0.2, 0.2]), 3)
    with pytest.raises(DataError, match="0 or more"):
        check_labels(np.array([1.2, -0.2]), 2)
    with pytest.raises(DataError, match="2 weights"):
        check_labels(np.array([0.5, 0.5]), 3)
