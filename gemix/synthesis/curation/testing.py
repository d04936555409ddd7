"""The contract of a curation rule, as a test class to subclass (pytest collects it)::

class TestMyRule(CurationRuleContract):
    rule = MyRule()
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from gemix.data.leakage.perceptual_hash import thumbnails
from gemix.evaluation.image_quality.features.base import Extractor
from gemix.evaluation.privacy.measure import RealSample
from gemix.synthesis.curation.base import Candidates, CurationRule, ScoreRule
from gemix.synthesis.curation.config import CurationConfig

SIDE, CLASSES = 16, 3


def pixel_features() -> Extractor:
    """Return an extractor whose features are the pixels."""
    return Extractor(
        name="pixels",
        checksum="0" * 64,
        forward=lambda images: images.float().flatten(1),
        device=torch.device("cpu"),
    )


def smooth_images(count: int, seed: int) -> np.ndarray:
    """Return different smooth images, uint8 [count, 1, 16, 16]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = rng.uniform(0.5, 3, (count, 3, 2)), rng.uniform(0, 2 * np.pi, (count, 3))
    phase = np.einsum("nwd,dhv->nwhv", waves[0], np.stack([y, x])) * 2 * np.pi
    values = np.sin(phase + waves[1][:, :, None, None]).mean(axis=1)
    return np.uint8(127 + 100 * values)[:, None]


def candidates_of(images: np.ndarray, training: np.ndarray) -> Candidates:
    """Return candidates whose discriminator prefers bright images; every real one is a patient."""
    count = len(images)
    return Candidates(
        images=images,
        asked=np.eye(CLASSES, dtype=np.float32)[np.arange(count) % CLASSES],
        training=RealSample(images=training, patients=np.arange(len(training))),
        extractor=pixel_features(),
        learned_thumbnails=lambda: [thumbnails(training)],
        discriminator=lambda images, labels: images.mean(axis=(1, 2, 3), dtype=np.float64),
    )


class CurationRuleContract:
    """Contract of a curation rule; subclass it and set `rule`."""

    rule: CurationRule
    config = CurationConfig(rules=("memorized",), lowest_share=0.2)

    def candidates(self, count: int = 60) -> Candidates:
        """Return images of unseen patients beside training images."""
        return candidates_of(smooth_images(count, 1), smooth_images(80, 0))

    def test_it_is_described(self) -> None:
        """Its name is an identifier, and it says what it removes."""
        assert self.rule.name.isidentifier() and self.rule.meaning

    def test_it_says_for_each_image_whether_it_is_removed(self) -> None:
        """The result is bool [N], the same each time, and inputs are left alone."""
        found = self.candidates()
        before, state = found.images.copy(), torch.get_rng_state()
        removed = self.rule.removes(found, self.config)
        assert removed.dtype == bool and removed.shape == (60,)
        assert np.array_equal(removed, self.rule.removes(self.candidates(), self.config))
        assert np.array_equal(found.images, before)
        assert torch.equal(torch.get_rng_state(), state)

    def test_most_images_of_unseen_patients_stay(self) -> None:
        """No more than the share that scores remove, and hardly any other."""
        removed = self.rule.removes(self.candidates(), self.config)
        most = self.config.lowest_share if isinstance(self.rule, ScoreRule) else 0.05
        assert removed.mean() <= most

    def test_one_image_and_two_training_images_are_enough(self) -> None:
        """Small sets are curated too."""
        few = candidates_of(smooth_images(1, 1), smooth_images(2, 0))
        assert self.rule.removes(few, self.config).shape == (1,)

    def test_a_share_of_none_removes_none_by_score(self) -> None:
        """`lowest_share` 0 switches scores off."""
        if isinstance(self.rule, ScoreRule):
            config = dataclasses.replace(self.config, lowest_share=0.0)
            assert not self.rule.removes(self.candidates(), config).any()
