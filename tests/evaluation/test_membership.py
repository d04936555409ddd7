"""Membership inference and near images: values by hand, intervals, control, shift, verdicts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from gemix.evaluation.privacy.config import AuditConfig
from gemix.evaluation.privacy.decision import decide
from gemix.evaluation.privacy.measure import RealSample, SpaceFindings, measure
from gemix.evaluation.privacy.membership import control_auc, membership_auc
from gemix.evaluation.privacy.near_images import near_images, relative_distances
from gemix.evaluation.privacy.spaces import PixelSpace, patient_distances
from gemix.io.audit_record import AuditedImages, AuditFindings, Copies, LearnedFrom

THRESHOLDS = AuditConfig(spaces=("pixels",))
EACH = np.arange


def test_the_auc_is_that_of_a_roc_curve_with_ties():
    rng = np.random.default_rng(0)
    members, others = rng.integers(0, 9, 60) + 1.0, rng.integers(0, 9, 40) + 0.0
    found = membership_auc(members, others, EACH(60) // 3, EACH(40) // 2, seed=0)
    truth = np.repeat([1, 0], [60, 40])
    assert found.auc == pytest.approx(roc_auc_score(truth, np.concatenate([members, others])))
    assert 0 < found.low < found.auc < found.high < 1
    assert found == membership_auc(members, others, EACH(60) // 3, EACH(40) // 2, seed=0)


def test_slices_of_a_patient_are_no_further_patients():
    rng = np.random.default_rng(1)
    members, others = rng.normal(size=30), rng.normal(size=30)
    one = membership_auc(members, others, EACH(30), EACH(30), seed=0)
    many = membership_auc(
        members.repeat(10), others.repeat(10), EACH(30).repeat(10), EACH(30).repeat(10), seed=0
    )
    assert (many.auc, many.low, many.high) == pytest.approx((one.auc, one.low, one.high))
    naive = membership_auc(members.repeat(10), others.repeat(10), EACH(300), EACH(300), seed=0)
    assert naive.high - naive.low < 0.5 * (many.high - many.low)


def test_intervals_and_control_hold_what_they_say():
    """Of 95% intervals of scores that tell nothing, 80 draws miss 0.5 some four times."""
    missed = beyond = 0
    for draw in range(80):
        rng = np.random.default_rng(draw)
        level = rng.normal(size=90)  # of each patient; slices differ little from it
        scores = level.repeat(4) + 0.1 * rng.normal(size=360)
        patients = EACH(90).repeat(4)
        is_member = patients < 60
        found = membership_auc(
            scores[is_member], scores[~is_member], patients[is_member], patients[~is_member], seed=0
        )
        control = control_auc(scores[is_member], patients[is_member], 30, seed=0)
        missed += not found.low <= 0.5 <= found.high
        beyond += not control.low <= found.auc <= control.high
        assert control.auc == pytest.approx(0.5, abs=0.01)
    assert 1 <= missed <= 10 and beyond <= 10


def test_relative_distances_by_hand():
    inf = torch.inf  # of the own patient
    distances = torch.tensor([[2, 1, 4], [0, 5, 5.0], [0, 0, 0], [inf, 2, 8], [inf, 2, inf]])
    assert relative_distances(distances).tolist() == pytest.approx([1 / 3, 0, 1, 1 / 4, 1])
    assert relative_distances(distances[:, :1]).tolist() == [1, 1, 1, 1, 1]


def test_near_images_by_hand():
    unseen = np.linspace(0.5, 1, 99).repeat(2)
    patients = EACH(99).repeat(2)
    synthetic = np.concatenate([np.full(30, 0.4), np.full(70, 0.9)])
    found = near_images("pixels", synthetic, unseen, patients, quantile=0.05, seed=0)
    assert (found.expected, found.share) == (0.05, 0.3)
    assert found.low == pytest.approx(0.2124, abs=1e-4)  # Clopper and Pearson for 30 of 100
    assert found.high == pytest.approx(0.3998, abs=1e-4)
    assert 0.05 < found.expected_high < 0.12


def test_a_moved_and_mirrored_copy_is_at_its_image_in_pixels():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 1, 40, 40), dtype=np.uint8)
    space = PixelSpace(torch.device("cpu"))
    base = next(space.views(images))
    assert base.shape == (6, 20 * 20)
    numbers = torch.arange(6)
    moved = np.roll(images[..., ::-1], (2, -2), axis=(2, 3))
    found = patient_distances(space.views(moved // 2 + 60), base, numbers, 6)
    assert (found.argmin(dim=1) == numbers).all()
    # but for the pixels at the frame
    assert found.diagonal().max() < 0.5 < found[~torch.eye(6, dtype=torch.bool)].min()
    exact = patient_distances(space.views(images), base, numbers, 7)
    assert exact.diagonal().max() == 0 and exact[:, 6].isinf().all()


class Plain:
    """A space whose rows are the pixels."""

    name = "pixels"

    def views(self, images: np.ndarray):
        yield torch.from_numpy(images.reshape(len(images), -1)).float()


def rows(seed: int, count: int, centre: float = 128.0, spread: float = 20.0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(centre, spread, (count, 1, 2, 4))
    return drawn.clip(0, 255).astype(np.uint8)


def found(synthetic: np.ndarray, members: np.ndarray, held_out: np.ndarray) -> SpaceFindings:
    inside = RealSample(images=members, patients=EACH(len(members)))
    outside = RealSample(images=held_out, patients=EACH(len(held_out)) + len(members))
    return measure(Plain(), synthetic, inside, inside, outside, quantile=0.05, seed=0)


def verdict(space: SpaceFindings, members: int, held_out: int) -> tuple[str, tuple[str, ...]]:
    images = AuditedImages(
        synthetic=300,
        synthetic_total=300,
        training=members,
        training_patients=members,
        members=members,
        member_patients=members,
        held_out=held_out,
        held_out_patients=held_out,
    )
    findings = AuditFindings(
        images=images,
        learned_from=LearnedFrom(is_on_record=True, elsewhere=0, unknown=()),
        copies=Copies(resaved=0, held_out=0, singular=0),
        near=space.near,
        attacks=space.attacks,
    )
    return decide(findings, THRESHOLDS)


def test_a_split_of_other_patients_is_no_leak():
    """Without a control of the split, held-out patients of another kind look like a leak."""
    members = rows(0, 300)
    other_kind = found(rows(1, 300), members, rows(2, 150, spread=30.0))
    (nearest, _) = other_kind.attacks
    assert nearest.result.low > 0.6 and nearest.result.auc > nearest.control.high
    assert nearest.shift.low > 0.5
    status, reasons = verdict(other_kind, 300, 150)
    assert status == "undecided" and any("this may be no leak" in reason for reason in reasons)
    assert verdict(found(rows(1, 300), members, rows(2, 150)), 300, 150)[0] == "passed"
    # a true leak is told from it: the set replays every member
    replay = (members[:300] + 1).astype(np.uint8)
    assert verdict(found(replay, members, rows(2, 150, spread=30.0)), 300, 150)[0] == "failed"


def test_a_split_that_hides_a_leak_does_not_pass():
    """Held-out patients in the middle of all others are near to any synthetic image."""
    hidden = found(rows(1, 300), rows(0, 300), rows(2, 150, spread=10.0))
    nearest, calibrated = hidden.attacks
    assert nearest.result.high < THRESHOLDS.pass_auc and nearest.shift.high < 0.5
    # members are far from the references too, which looks like a leak
    assert calibrated.result.low > 0.6 and calibrated.shift.low > 0.6
    status, reasons = verdict(hidden, 300, 150)
    assert status == "undecided" and all("without a generator" in text for text in reasons)


def test_copies_count_only_where_patients_are_no_copies_of_each_other():
    space = found(rows(1, 300), rows(0, 300), rows(2, 150))
    images = AuditedImages(
        synthetic=300,
        synthetic_total=300,
        training=300,
        training_patients=300,
        members=300,
        member_patients=300,
        held_out=150,
        held_out_patients=150,
    )
    findings = AuditFindings(
        images=images,
        learned_from=LearnedFrom(is_on_record=True, elsewhere=0, unknown=()),
        copies=Copies(resaved=1, held_out=0, singular=0),
        near=space.near,
        attacks=space.attacks,
    )
    status, (reason,) = decide(findings, THRESHOLDS)
    assert status == "failed" and reason.startswith("1 of 300 images are copies")
    alike = dataclasses.replace(findings, copies=Copies(resaved=1, held_out=1, singular=0))
    assert decide(alike, THRESHOLDS)[0] == "passed"
    part = dataclasses.replace(images, synthetic=20)
    status, reasons = decide(
        dataclasses.replace(
            findings, copies=Copies(resaved=0, held_out=0, singular=0), images=part
        ),
        THRESHOLDS,
    )
    assert status == "undecided" and "20 of 300 images were compared" in reasons[0]


def test_one_patient_each_is_measured_without_failing():
    alone = found(rows(1, 5), rows(0, 1), rows(2, 1))
    assert alone.attacks[0].shift is None and len(alone.attacks) == 1
    assert np.isfinite([alone.attacks[0].result.auc, alone.near[0].share]).all()
