"""Randomness is a function of (seed, stream, index, step)."""

from __future__ import annotations

import numpy as np

from gemix.core.rng import Stream, normal, permutation, sample_rng, uniform


def test_a_draw_does_not_depend_on_the_batch():
    whole = normal(1, Stream.G_LATENT, range(8), (5,), step=3)
    parts = [normal(1, Stream.G_LATENT, [i], (5,), step=3) for i in range(8)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_each_of_the_four_numbers_matters():
    def numbers(*args):
        return sample_rng(*args).random(4).tobytes()

    base = (1, Stream.G_LATENT, 2, 3)
    others = [
        (0, Stream.G_LATENT, 2, 3),
        (1, Stream.D_LATENT, 2, 3),
        (1, Stream.G_LATENT, 1, 3),
        (1, Stream.G_LATENT, 3, 2),
    ]
    assert numbers(*base) == numbers(*base)
    assert len({numbers(*args) for args in [base, *others]}) == 5


def test_neighbouring_samples_are_independent():
    draws = normal(0, Stream.SYNTHESIS_NOISE, range(200), (500,))
    assert abs(draws.mean()) < 0.02 and abs(draws.std() - 1) < 0.02
    correlation = np.corrcoef(draws)
    assert np.abs(correlation[~np.eye(200, dtype=bool)]).max() < 0.25
    assert uniform(0, Stream.SHARD_ORDER, range(100), (100,)).mean() - 0.5 < 0.02


def test_the_numbers_never_change():
    # a stored seed must mean the same image after an upgrade
    expected = [0.8628078270784338, 0.16432208674811644]
    got = sample_rng(7, Stream.G_LATENT, 1, 2).random(2)
    np.testing.assert_allclose(got, expected)


def test_permutations_differ_by_epoch():
    first, second = (permutation(0, Stream.DATA_ORDER, 50, step=s) for s in (0, 1))
    assert sorted(first) == list(range(50)) and not np.array_equal(first, second)


def test_no_samples_is_an_empty_batch():
    assert normal(0, Stream.G_LATENT, [], (3,)).shape == (0, 3)
