"""near_pairs: the pairs of near duplicates, whatever the blocks, and what storage costs them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from gemix.data.leakage import near_duplicates as near
from gemix.data.leakage.near_duplicates import (
    MAX_DISTANCE,
    MIN_COPY_CORRELATION,
    MIN_CORRELATION,
    near_blocks,
    near_pairs,
)
from gemix.data.leakage.perceptual_hash import (
    COPY_BYTES,
    Fingerprints,
    distance,
    fingerprint,
    mirror,
)


@pytest.fixture
def images():
    """uint8 [60, 64, 64]: 20 pictures three times, with ever more noise."""
    rng = np.random.default_rng(3)
    coarse = np.kron(rng.normal(size=(20, 8, 8)), np.ones((8, 8)))
    noise = rng.normal(size=(60, 64, 64)) * np.linspace(0, 3, 60)[:, None, None]
    return np.clip(np.tile(coarse, (3, 1, 1)) * 40 + 20 * noise + 128, 0, 255).astype(np.uint8)


def by_definition(first, second):
    straight, mirrored = (
        first.copies @ other.T for other in (second.copies, mirror(second.copies))
    )
    similar = straight >= MIN_CORRELATION
    alike = distance(first.hashes[:, None], second.hashes[None]) <= MAX_DISTANCE
    is_copy = (straight >= MIN_COPY_CORRELATION) | (mirrored >= MIN_COPY_CORRELATION)
    return np.argwhere((similar & alike) | is_copy)


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_the_pairs_are_those_of_the_definition_whatever_the_blocks(images, block, monkeypatch):
    monkeypatch.setattr(near, "_BLOCK", block)
    images[40:45] = images[:5, :, ::-1]
    first, second = fingerprint(images[:25]), fingerprint(images[25:])
    pairs = near_pairs(first, second)
    assert pairs.dtype == np.int64
    assert {(row, 15 + row) for row in range(5)} <= set(map(tuple, pairs.tolist()))
    assert 10 < len(pairs) < 50
    np.testing.assert_array_equal(pairs, by_definition(first, second))


def test_nothing_is_near_to_nothing(images):
    some, none = fingerprint(images), fingerprint(images[:0])
    assert near_pairs(some, none).shape == near_pairs(none, some).shape == (0, 2)


def test_an_image_is_near_itself_unless_it_is_of_one_grey(images):
    images[5] = 90
    prints = fingerprint(images)
    pairs = near_pairs(prints, prints)
    assert set(pairs[pairs[:, 0] == pairs[:, 1], 0]) == set(range(60)) - {5}


def test_memory_does_not_grow_with_the_sets():
    rng = np.random.default_rng(0)
    copies = rng.normal(size=(6000, 256)).astype(np.float32)
    copies /= np.linalg.norm(copies, axis=1, keepdims=True)
    prints = Fingerprints(hashes=rng.integers(2**63, size=6000, dtype=np.uint64), copies=copies)
    tracemalloc.start()
    try:
        assert len(near_pairs(prints, prints)) == 6000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64e6


def test_memory_stays_small_where_all_images_are_the_same(images):
    prints = fingerprint(images[:1]).take(np.zeros(2000, int))
    tracemalloc.start()
    try:
        assert sum(len(rows) for rows, *_ in near_blocks(prints, prints)) == 2000**2
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64e6


def test_packed_fingerprints_come_back_with_nearly_the_same_correlations(images):
    prints = fingerprint(images)
    packed = prints.packed()
    assert {len(copy) for copy in packed} == {COPY_BYTES}
    again = Fingerprints.unpacked(prints.hashes, packed)
    np.testing.assert_array_equal(again.hashes, prints.hashes)
    moved = again.copies @ again.copies.T - prints.copies @ prints.copies.T
    assert 0 < np.abs(moved).max() < 1e-3
    assert len(Fingerprints.unpacked(prints.hashes[:0], [])) == 0
