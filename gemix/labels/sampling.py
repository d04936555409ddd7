"""Soft labels of a set by index, and the check of given ones.

Label i of a set is a function of (seed, i) alone, so a set of 2N begins with the set of N, and
workers that make different parts of it agree.
"""

from __future__ import annotations

import numpy as np

from gemix.core.errors import ConfigError, DataError
from gemix.core.rng import Stream, sample_rng
from gemix.labels.base import LabelSampler
from gemix.labels.config import LabelConfig
from gemix.labels.registry import SAMPLERS

_BLOCK = 4096  # labels drawn at once; part of what (seed, i) means, so never change it


def sample_labels(
    method: str, config: LabelConfig, *, count: int, classes: int, seed: int, start: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the soft labels `start` to `start + count - 1` of a set.

    Args:
        method: name of a sampler in :data:`gemix.labels.registry.SAMPLERS`.
        config, count, classes, seed, start: as :func:`draw_labels` takes them.

    Raises:
        ConfigError: for a method that is not registered.
        DataError: as :func:`draw_labels` raises it.
    """
    if method not in SAMPLERS:
        raise ConfigError(f"label sampler {method!r}: unknown; choose one of {', '.join(SAMPLERS)}")
    return draw_labels(
        SAMPLERS[method], config, count=count, classes=classes, seed=seed, start=start
    )


def draw_labels(
    sampler: LabelSampler,
    config: LabelConfig,
    *,
    count: int,
    classes: int,
    seed: int,
    start: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the soft labels `start` to `start + count - 1` of a sampler's set.

    Args:
        sampler: what draws them.
        config: its parameters.
        classes: K, at least 2.
        seed: of the set; label i is a function of (seed, i).

    Returns:
        theta float32 [count, K], rows non-negative and summing to 1 within 1e-6, and the
        dominant classes int64 [count], c ~ Categorical(`class_weights`).

    Raises:
        DataError: for fewer than two classes, or another number of class weights.
        ConfigError: for class weights that are a name; a sampler needs the numbers.
    """
    if classes < 2:
        raise DataError(f"soft labels need two or more classes, and there are {classes}")
    check_class_weights(config, classes)
    if isinstance(config.class_weights, str):
        raise ConfigError(
            f"labels.class_weights is {config.class_weights!r}, which "
            "gemix.synthesis.class_weights resolves; give a sampler numbers, or null for uniform "
            "ones"
        )
    if count < 1:
        return np.empty((0, classes), np.float32), np.empty(0, np.int64)
    first, last = start // _BLOCK, (start + count - 1) // _BLOCK
    blocks = [
        sampler(sample_rng(seed, Stream.SOFT_LABEL, block), _BLOCK, classes, config)
        for block in range(first, last + 1)
    ]
    theta = np.concatenate([theta for theta, _ in blocks]).astype(np.float32)
    dominant = np.concatenate([dominant for _, dominant in blocks])
    rows = slice(start - first * _BLOCK, start - first * _BLOCK + count)
    return theta[rows], dominant[rows]


def check_class_weights(config: LabelConfig, classes: int) -> None:
    """Check that class weights in numbers are one a class.

    Raises:
        DataError: if they are not.
    """
    weights = config.class_weights
    if isinstance(weights, tuple) and len(weights) != classes:
        raise DataError(
            f"labels.class_weights has {len(weights)} weights for {classes} classes; give one a "
            "class"
        )


def check_labels(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return soft labels as float32 [N, K] after checking them.

    Args:
        labels: [N, K] or [K].
        classes: K.

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
