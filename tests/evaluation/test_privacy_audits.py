"""Privacy audits: the contract of each, and the copying audit by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gemix.evaluation.privacy.base import AuditSets, PrivacyAudit
from gemix.evaluation.privacy.copying import Copying
from gemix.evaluation.privacy.registry import AUDITS, audit_outputs
from gemix.evaluation.privacy.testing import PrivacyAuditContract
from gemix.evaluation.privacy.thumbnails import downsampled_pixels


@pytest.mark.parametrize("audit", AUDITS, ids=lambda audit: type(audit).__name__)
class TestEveryAudit(PrivacyAuditContract):
    @pytest.fixture(autouse=True)
    def _choose(self, audit: PrivacyAudit) -> None:
        self.audit = audit


def copying(samples: torch.Tensor, held_out: torch.Tensor) -> dict[str, float]:
    """Audit images of one pixel beside a training set of one black image."""
    black = torch.zeros(1, 1)
    sets = AuditSets(training=black, held_out=held_out[:, None], samples=samples[:, None])
    return Copying().compute(sets)


def test_names_are_unique_among_all_audits():
    names = [output.name for output in audit_outputs()]
    assert len(set(names)) == len(names) > 0


def test_copying_of_copies_of_unseen_patients_and_of_far_samples():
    unseen = torch.linspace(1, 2, 101)
    assert copying(torch.zeros(10), unseen) == {"copying_auc": 1, "near_fraction": 1}
    alike = copying(unseen, unseen)
    assert alike["copying_auc"] == pytest.approx(0.5)
    assert alike["near_fraction"] == pytest.approx(0.05, abs=0.011)
    assert copying(torch.full((10,), 3.0), unseen)["copying_auc"] == 0


def test_copying_counts_ties_half():
    found = copying(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0, 2.0]))
    assert found["copying_auc"] == pytest.approx((2 - 1 + 1) / 3)


def test_the_contract_fails_an_audit_that_sees_no_copies():
    class Blind(PrivacyAudit):
        outputs = Copying.outputs

        def compute(self, sets: AuditSets) -> dict[str, float]:
            return {output.name: output.unseen for output in self.outputs}

    contract = type("Blindness", (PrivacyAuditContract,), {"audit": Blind()})()
    with pytest.raises(AssertionError):
        contract.test_copies_of_training_images_are_noticed()


def test_thumbnails_average_large_images_and_keep_small_ones():
    small = np.arange(2 * 16 * 16, dtype=np.uint8).reshape(2, 1, 16, 16)
    assert (downsampled_pixels(small).numpy() == small.reshape(2, -1)).all()
    large = np.zeros((1, 1, 128, 128), np.uint8)
    large[0, 0, :2, :2] = [[100, 50], [50, 0]]
    found = downsampled_pixels(large)
    assert found.shape == (1, 64 * 64) and found[0, 0] == 50 and found[0, 1:].max() == 0
