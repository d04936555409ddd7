"""t-SNE maps: groups stay apart, what is projected lands among its own, seeds repeat."""

from __future__ import annotations

import numpy as np
import pytest

from gemix.core.errors import DataError
from gemix.evaluation.projection import project

pytest.importorskip("openTSNE")


def groups(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return 12 * np.eye(8)[labels] + rng.normal(size=(count, 8)), labels


def test_what_is_projected_lands_among_its_own_and_moves_nothing():
    (reference, labels), (new, new_labels) = groups(0, 90), groups(1, 30)
    places, found, none = project(reference, [new, new[:0]], seed=0)
    assert (places.shape, found.shape, none.shape) == ((90, 2), (30, 2), (0, 2))
    distances = np.linalg.norm(found[:, None] - places[None], axis=2)
    np.testing.assert_array_equal(labels[distances.argmin(axis=1)], new_labels)
    for one, again in zip((places, found), project(reference, [new], seed=0), strict=True):
        np.testing.assert_array_equal(again, one)


def test_few_images_have_a_map_and_fewer_an_error():
    places, found = project(groups(0, 10)[0], [groups(1, 2)[0]], seed=0)
    assert np.isfinite(places).all() and np.isfinite(found).all()
    with pytest.raises(DataError, match="9 images: a t-SNE map needs 10 or more"):
        project(groups(0, 9)[0], [], seed=0)
    with pytest.raises(DataError, match="features of 12 images are all the same"):
        project(np.ones((12, 4)), [], seed=0)
    with pytest.raises(DataError, match="features that are not finite"):
        project(groups(0, 12)[0], [np.full((1, 8), np.nan)], seed=0)
