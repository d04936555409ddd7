"""Random numbers as a function of (seed, stream, index, step) alone.

Every sample has a generator of its own, so that draws depend neither on how a batch is split, nor
on the number of workers, nor on earlier draws. The bits are those of the counter-based Philox 4x64
(Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), whose stream NumPy
guarantees across versions. :mod:`gemix.core.torch_rng` draws whole batches on a device.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import numpy as np


class Stream(enum.IntEnum):
    """Independent streams. Numbers are never reused, so that a seed keeps its meaning."""

    INIT = 1
    DATA_ORDER = 2
    G_LATENT = 3
    D_LATENT = 4
    # retired: 5 (style mixing) and 17 (labels), now drawn by the streams of the latents
    SYNTHESIS_NOISE = 6
    AUGMENT_REAL = 7
    AUGMENT_FAKE = 8
    PATH_LENGTH = 9
    SOFT_LABEL = 10
    SYNTHESIS_LATENT = 11
    PHANTOM = 12
    # retired: 13 (splits, now hashed from the groups' names)
    CLASSIFIER_ORDER = 14
    CLASSIFIER_AUGMENT = 15
    BOOTSTRAP = 16
    METRIC = 18
    PATH_LENGTH_NOISE = 19
    SHARD_ORDER = 20
    REDRAW = 21
    AUDIT = 22
    CLASSIFIER_MIXING = 23
    CLASSIFIER_SYNTHETIC_ORDER = 24
    PATIENT_DRAW = 25
    MULTIPLICITY = 26
    SYNTHETIC_SUBSET = 27
    SWEEP = 30
    CLASSIFIER_CLASS_ORDER = 31


def sample_rng(seed: int, stream: Stream, index: int = 0, step: int = 0) -> np.random.Generator:
    """Return the generator of one sample, with the same numbers on every machine.

    Args:
        seed, index, step: each from 0 to 2**64 - 1.
        stream: purpose of the numbers.
    """
    key = np.array([seed, stream], dtype=np.uint64)
    # the generator increments word 0 of the counter
    counter = np.array([0, index, step, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def normal(
    seed: int, stream: Stream, indices: Iterable[int], shape: tuple[int, ...], step: int = 0
) -> np.ndarray:
    """Draw standard normal numbers for each sample: float32 [len(indices), *shape]."""
    draws = [
        sample_rng(seed, stream, index, step).standard_normal(shape, dtype=np.float32)
        for index in indices
    ]
    return np.stack(draws) if draws else np.empty((0, *shape), np.float32)


def uniform(
    seed: int, stream: Stream, indices: Iterable[int], shape: tuple[int, ...], step: int = 0
) -> np.ndarray:
    """Draw uniform numbers in [0, 1) for each sample: float32 [len(indices), *shape]."""
    draws = [
        sample_rng(seed, stream, index, step).random(shape, dtype=np.float32) for index in indices
    ]
    return np.stack(draws) if draws else np.empty((0, *shape), np.float32)


def permutation(seed: int, stream: Stream, size: int, step: int = 0, index: int = 0) -> np.ndarray:
    """Return a permutation of range(size), int64 [size]; `step` is the epoch."""
    return sample_rng(seed, stream, index, step).permutation(size)
