"""Samplers of soft labels: which mixture of classes a synthetic image is asked for.

Label i of a set is a function of (seed, i) alone, so a set of 2N begins with the set of N, and
workers that make different parts of it agree.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Protocol

import numpy as np

from gemix.core.config_schema import Config, ConfigIssue, NonNegative, Range
from gemix.core.errors import DataError
from gemix.core.rng import Stream, sample_rng

# below 0.05 all gamma variates of a row can underflow to 0
Concentration = Annotated[float, Range(low=0.05, high=1e6)]

_BLOCK = 4096  # labels drawn at once; part of what (seed, i) means, so never change it


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelConfig(Config):
    """Parameters of the label samplers; each sampler uses its own."""

    temperature: Annotated[
        float, Range(1e-3, 1e3), "softmax: temperature T; the higher, the softer the labels."
    ] = 1.0
    bias: Annotated[
        float, Range(-1e6, 1e6), "softmax: what is added to the logit of the dominant class."
    ] = 2.0
    noise_std: Annotated[
        float, Range(0, 1e6), "softmax: standard deviation of the logits' Gaussian noise."
    ] = 1.0
    dirichlet_dominant: Annotated[
        Concentration, "dirichlet, dirichlet_pair: concentration of the dominant class."
    ] = 2.0
    dirichlet_other: Annotated[
        Concentration, "dirichlet, dirichlet_pair: concentration of every other class."
    ] = 1.0
    pair_beta: Annotated[
        Concentration, "dirichlet_pair: parameter a of the blend lambda ~ Beta(a, a)."
    ] = 1.0
    class_weights: Annotated[
        tuple[NonNegative, ...] | None,
        "Relative odds of the dominant class, one number a class; null means uniform.",
    ] = None

    def validate(self) -> list[ConfigIssue]:
        """Require one positive class weight at least."""
        weights = self.class_weights
        if weights is None or sum(weights) > 0:
            return []
        return [ConfigIssue("class_weights", list(weights), "weights, one or more above 0")]


class Sampler(Protocol):
    """Draws a block of soft labels."""

    def __call__(
        self, rng: np.random.Generator, count: int, classes: int, config: LabelConfig
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns theta, float64 [count, classes], and the dominant classes, int64 [count]."""


def softmax_labels(
    rng: np.random.Generator, count: int, classes: int, config: LabelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Softmax with temperature and bias.

    z ~ N(0, sigma^2 I) with sigma = `noise_std`; z_c += b for the dominant class c;
    theta = softmax(z / T). sigma = 0 is the deterministic reading: every label of a class is
    the same, with theta_c = e^(b/T) / (e^(b/T) + K - 1).
    """
    dominant = _dominant_classes(rng, count, classes, config)
    z = config.noise_std * rng.standard_normal((count, classes))
    z[np.arange(count), dominant] += config.bias
    scaled = (z - z.max(axis=1, keepdims=True)) / config.temperature  # exp stays finite at any T
    weights = np.exp(scaled)
    return weights / weights.sum(axis=1, keepdims=True), dominant


def dirichlet_labels(
    rng: np.random.Generator, count: int, classes: int, config: LabelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """theta ~ Dirichlet(alpha) with alpha_c = 2 for the dominant class and 1 elsewhere.

    The defaults are those of GeMix's class-biased Dirichlet prior.
    """
    dominant = _dominant_classes(rng, count, classes, config)
    return _dirichlet(rng, dominant, classes, config), dominant


def dirichlet_pair_labels(
    rng: np.random.Generator, count: int, classes: int, config: LabelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """GeMix's blend of two labels: theta = lambda theta_1 + (1 - lambda) theta_2.

    theta_1 and theta_2 are Dirichlet vectors biased to two different classes, and
    lambda ~ Beta(a, a) with a = `pair_beta`. The dominant class is the one with the larger share.
    """
    first = _dominant_classes(rng, count, classes, config)
    second = (first + 1 + rng.integers(classes - 1, size=count)) % classes
    blend = rng.beta(config.pair_beta, config.pair_beta, size=(count, 1))
    theta = blend * _dirichlet(rng, first, classes, config)
    theta += (1 - blend) * _dirichlet(rng, second, classes, config)
    return theta, np.where(blend[:, 0] >= 0.5, first, second)


def onehot_labels(
    rng: np.random.Generator, count: int, classes: int, config: LabelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """All weight on the dominant class: ordinary class-conditional synthesis."""
    dominant = _dominant_classes(rng, count, classes, config)
    return np.eye(classes)[dominant], dominant


SAMPLERS: dict[str, Sampler] = {
    "softmax": softmax_labels,
    "dirichlet": dirichlet_labels,
    "dirichlet_pair": dirichlet_pair_labels,
    "onehot": onehot_labels,
}


def sample_labels(
    method: str, config: LabelConfig, *, count: int, classes: int, seed: int, start: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Soft labels of the samples `start` to `start + count - 1` of a set.

    Args:
        method: a key of `SAMPLERS`.
        classes: K, at least 2.
        seed: names the set; label i of it is a function of (seed, i).

    Returns:
        theta float32 [count, K], rows non-negative and summing to 1 within 1e-6, and the
        dominant classes int64 [count], c ~ Categorical(`class_weights`).

    Raises:
        DataError: for fewer than two classes, or weights that are not one a class.
    """
    if classes < 2:
        raise DataError(f"soft labels need two or more classes, and there are {classes}")
    if config.class_weights is not None and len(config.class_weights) != classes:
        raise DataError(
            f"labels.class_weights has {len(config.class_weights)} weights for {classes} classes; "
            "give one a class"
        )
    if count < 1:
        return np.empty((0, classes), np.float32), np.empty(0, np.int64)
    first, last = start // _BLOCK, (start + count - 1) // _BLOCK
    blocks = [
        SAMPLERS[method](sample_rng(seed, Stream.SOFT_LABEL, block), _BLOCK, classes, config)
        for block in range(first, last + 1)
    ]
    theta = np.concatenate([theta for theta, _ in blocks]).astype(np.float32)
    dominant = np.concatenate([dominant for _, dominant in blocks])
    rows = slice(start - first * _BLOCK, start - first * _BLOCK + count)
    return theta[rows], dominant[rows]


def check_labels(labels: np.ndarray, classes: int) -> np.ndarray:
    """The soft labels as float32 [N, K], if they are soft labels of `classes` classes.

    Raises:
        DataError: for another width, negative weights, or rows that do not sum to 1 within 1e-3.
    """
    theta = np.atleast_2d(np.asarray(labels, dtype=np.float32))
    if theta.shape[1] != classes:
        raise DataError(f"label {theta[0].tolist()} has {theta.shape[1]} weights, want {classes}")
    wrong = (theta < 0).any(axis=1) | ~(np.abs(theta.sum(axis=1) - 1) <= 1e-3)
    if wrong.any():
        worst = theta[wrong.argmax()]
        raise DataError(
            f"label {worst.tolist()} sums to {worst.sum():.4g}; "
            "give weights of 0 or more that sum to 1"
        )
    return theta


def _dominant_classes(
    rng: np.random.Generator, count: int, classes: int, config: LabelConfig
) -> np.ndarray:
    if config.class_weights is None:
        return rng.integers(classes, size=count)
    weights = np.asarray(config.class_weights)
    return rng.choice(classes, size=count, p=weights / weights.sum())


def _dirichlet(
    rng: np.random.Generator, dominant: np.ndarray, classes: int, config: LabelConfig
) -> np.ndarray:
    """One Dirichlet vector a row, as normalised gamma variates."""
    alpha = np.full((len(dominant), classes), config.dirichlet_other)
    alpha[np.arange(len(dominant)), dominant] = config.dirichlet_dominant
    gamma = rng.standard_gamma(alpha)
    return gamma / gamma.sum(axis=1, keepdims=True)
