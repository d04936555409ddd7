"""Random numbers as a function of (seed, stream, sample index, step) and of nothing else.

Every sample has a generator of its own, keyed by the four numbers, so the draw never depends on
how a batch is split, on the number of workers or on what was drawn before. The bits come from
the counter-based Philox 4x64 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
SC 2011), whose stream NumPy guarantees across versions. What a training draws for every batch is
drawn on its device instead (:mod:`gemix.core.torch_rng`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import numpy as np


class Stream(enum.IntEnum):
    """Independent streams; a number, once given, is never given to anything else."""

    INIT = 1
    DATA_ORDER = 2
    G_LATENT = 3
    D_LATENT = 4
    # 5 drew style mixing and 17 labels, which are of the latents' streams now
    SYNTHESIS_NOISE = 6
    AUGMENT_REAL = 7
    AUGMENT_FAKE = 8
    PATH_LENGTH = 9
    SOFT_LABEL = 10
    SYNTHESIS_LATENT = 11
    PHANTOM = 12
    # 13 drew splits, which are functions of the groups' names now
    CLASSIFIER_ORDER = 14
    CLASSIFIER_AUGMENT = 15
    BOOTSTRAP = 16
    METRIC = 18
    PATH_LENGTH_NOISE = 19
    SHARD_ORDER = 20


def sample_rng(seed: int, stream: Stream, index: int = 0, step: int = 0) -> np.random.Generator:
    """The generator of one sample.

    Args:
        seed, index, step: each from 0 to 2**64 - 1.
        stream: what the numbers are for.

    Returns:
        A NumPy generator; the same four arguments give the same numbers on every machine.
    """
    key = np.array([seed, stream], dtype=np.uint64)
    # word 0 of the counter is the one that the generator itself counts up
    counter = np.array([0, index, step, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def normal(
    seed: int, stream: Stream, indices: Iterable[int], shape: tuple[int, ...], step: int = 0
) -> np.ndarray:
    """Standard normal noise, one independent draw a sample: float32 [len(indices), *shape]."""
    draws = [
        sample_rng(seed, stream, index, step).standard_normal(shape, dtype=np.float32)
        for index in indices
    ]
    return np.stack(draws) if draws else np.empty((0, *shape), np.float32)


def uniform(
    seed: int, stream: Stream, indices: Iterable[int], shape: tuple[int, ...], step: int = 0
) -> np.ndarray:
    """Uniform numbers in [0, 1), one independent draw a sample: float32 [len(indices), *shape]."""
    draws = [
        sample_rng(seed, stream, index, step).random(shape, dtype=np.float32) for index in indices
    ]
    return np.stack(draws) if draws else np.empty((0, *shape), np.float32)


def permutation(seed: int, stream: Stream, size: int, step: int = 0) -> np.ndarray:
    """A permutation of range(size): int64 [size]; `step` is the epoch."""
    return sample_rng(seed, stream, 0, step).permutation(size)
