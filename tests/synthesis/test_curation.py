"""Curation rules find what they are for, and pass the contract of a rule."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gemix.core.errors import ConfigError
from gemix.synthesis.curation.config import CurationConfig
from gemix.synthesis.curation.near_duplicate import distances_to_other_patients, duplicates
from gemix.synthesis.curation.realism import realism
from gemix.synthesis.curation.record import count_removed
from gemix.synthesis.curation.registry import RULES, open_rule
from gemix.synthesis.curation.testing import CurationRuleContract, candidates_of, smooth_images


class TestMemorized(CurationRuleContract):
    rule = open_rule("memorized")

    def test_copies_are_found_and_nothing_else(self):
        training, made = smooth_images(80, 0), smooth_images(40, 1)
        made[3] = training[7]
        made[5] = np.uint8(np.minimum(training[9][..., ::-1].astype(int) + 20, 255))  # mirrored
        removed = self.rule.removes(candidates_of(made, training), self.config)
        assert np.flatnonzero(removed).tolist() == [3, 5]


class TestNearDuplicate(CurationRuleContract):
    rule = open_rule("near_duplicate")

    def test_the_first_of_a_group_stays(self):
        made = smooth_images(40, 1)
        made[8], made[30], made[31] = made[2], made[2], made[20]
        made[31, 0, 3, 3] ^= 8
        removed = self.rule.removes(candidates_of(made, smooth_images(80, 0)), self.config)
        assert np.flatnonzero(removed).tolist() == [8, 30, 31]


class TestRealism(CurationRuleContract):
    rule = open_rule("realism")

    def test_images_of_noise_go_first_and_each_class_loses_the_same_share(self):
        made = smooth_images(60, 1)
        noise = np.random.default_rng(0).integers(0, 256, (12, 1, 16, 16), dtype=np.uint8)
        made[:12] = noise
        removed = self.rule.removes(candidates_of(made, smooth_images(80, 0)), self.config)
        assert removed.sum() == 12 and removed[:12].all()
        assert np.bincount(np.flatnonzero(removed) % 3).tolist() == [4, 4, 4]


class TestDiscriminator(CurationRuleContract):
    rule = open_rule("discriminator")

    def test_the_lowest_logits_go(self):
        made = smooth_images(60, 1)
        made[[4, 9]] //= 4  # the contract's discriminator prefers bright images
        config = dataclasses.replace(self.config, lowest_share=0.05)
        removed = self.rule.removes(candidates_of(made, smooth_images(80, 0)), config)
        assert removed[[4, 9]].all() and removed.sum() == 3

    def test_without_one_the_remedy_is_named(self):
        bare = dataclasses.replace(self.candidates(), discriminator=None)
        with pytest.raises(ConfigError, match="leave the rule out"):
            self.rule.removes(bare, self.config)


def test_every_rule_has_the_name_of_its_entry():
    assert {name: open_rule(name).name for name in RULES} == {name: name for name in RULES}


def test_realism_is_the_largest_radius_over_the_distance():
    # on a line: radii (k = 3) of 0, 1, 2, 3, 10 are 3, 2, 2, 3, 9; those above their median,
    # 3, are left out, which is that of 10
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0], [10.0]])
    found = realism(real, torch.tensor([[4.0], [1.5], [9.0]]))
    torch.testing.assert_close(found, torch.tensor([3.0, 4.0, 0.5], dtype=torch.float64))


def test_distances_leave_out_the_own_patient():
    features = torch.tensor([[0.0], [1.0], [5.0]])
    found = distances_to_other_patients(features, torch.tensor([0, 0, 1]))
    assert found.tolist() == [5.0, 4.0, 4.0]


def test_a_removed_image_removes_no_other():
    # a chain: 1 is near 0, 2 is near 1 alone, and stays
    assert duplicates(torch.tensor([[0.0], [1.0], [2.0]]), 1.5).tolist() == [False, True, False]


def test_duplicates_are_found_across_blocks(monkeypatch):
    features = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    features[40] = features[3]
    whole = duplicates(features, 0.5)
    monkeypatch.setattr("gemix.synthesis.curation.near_duplicate._ROWS", 7)
    assert whole[40] and np.array_equal(duplicates(features, 0.5), whole)


def test_an_image_counts_for_the_first_rule_that_removes_it():
    first, second = np.array([True, True, False, False]), np.array([False, True, True, False])
    counts, stays = count_removed({"a": first, "b": second}, {"a": "x", "b": "y"})
    assert [(c.rule, c.removed, c.alone) for c in counts] == [("a", 2, 2), ("b", 1, 2)]
    assert stays.tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    "wrong", [{"rules": ()}, {"rules": ("realism", "realism")}, {"lowest_share": 1.0}]
)
def test_settings_that_leave_nothing_to_do_are_refused(wrong):
    with pytest.raises(ConfigError):
        CurationConfig(**wrong)
