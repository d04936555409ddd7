"""The contract of rules of decision: what each that is registered must do."""

from __future__ import annotations

import numpy as np

from gemix.classifier.decision.base import ScoredImages
from gemix.classifier.decision.registry import load_rule


def scored_images(seed: int, patients: int = 40) -> ScoredImages:
    """Return images whose scores tell the sick from the healthy in part, some of them equal."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"p{index}" for index in range(patients)], 3)
    is_diseased = np.repeat(np.arange(patients) % 2 == 0, 3)
    scores = rng.normal(is_diseased * 1.0, 1.0).round(1)
    return ScoredImages(scores=scores, is_diseased=is_diseased, groups=groups)


def check_contract(name: str) -> None:
    """Assert that a rule is a function of the images, whatever their order.

    A higher level of a rule that has one moves the threshold one way only.
    """
    rule, images = load_rule(name), scored_images(0)
    order = np.random.default_rng(1).permutation(len(images.scores))
    shuffled = ScoredImages(
        scores=images.scores[order],
        is_diseased=images.is_diseased[order],
        groups=images.groups[order],
    )
    levels = (0.5, 0.7, 0.9)
    found = [rule(images, level) for level in levels]
    assert found == [rule(shuffled, level) for level in levels]
    if found[0] is not None:
        assert sorted(found) in (found, found[::-1])
        assert len(set(found)) > 1
