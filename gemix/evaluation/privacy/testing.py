"""The contract of a privacy audit, as a test class to subclass (pytest collects it)::

class TestMyAudit(PrivacyAuditContract):
    audit = MyAudit()
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gemix.evaluation.privacy.base import AuditSets, PrivacyAudit


class PrivacyAuditContract:
    """Contract of a privacy audit; subclass it and set `audit`.

    Attributes:
        audit: the audit under test.
        tolerance: how far values of samples like unseen patients may be from the expected ones,
            with 600 images in each set.
    """

    audit: PrivacyAudit
    tolerance: float = 0.06

    def rows(self, count: int, seed: int) -> Tensor:
        """Return images of unseen patients as standard normal rows, float32 [count, 8]."""
        return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))

    def values(self, training: Tensor, held_out: Tensor, samples: Tensor) -> dict[str, float]:
        """Return the audit's values of `samples`."""
        sets = AuditSets(training=training, held_out=held_out, samples=samples)
        return self.audit.compute(sets)

    def test_outputs_are_described(self) -> None:
        """Names are unique identifiers with a label and a meaning."""
        names = [output.name for output in self.audit.outputs]
        assert names and len(set(names)) == len(names)
        for output in self.audit.outputs:
            assert output.name.isidentifier() and output.label and output.meaning
            format(output.unseen, output.format)

    def test_samples_like_unseen_patients_have_the_expected_values(self) -> None:
        """Values are the expected ones if samples and held-out images have one distribution."""
        found = self.values(self.rows(600, 0), self.rows(600, 1), self.rows(600, 2))
        assert set(found) == {output.name for output in self.audit.outputs}
        for output in self.audit.outputs:
            assert abs(found[output.name] - output.unseen) <= self.tolerance, output.name

    def test_copies_of_training_images_are_noticed(self) -> None:
        """Values of a generator that returns its training images are far from the expected ones."""
        training = self.rows(600, 0)
        found = self.values(training, self.rows(600, 1), training.flip(0))
        for output in self.audit.outputs:
            assert abs(found[output.name] - output.unseen) > 3 * self.tolerance, output.name

    def test_values_are_finite_for_few_and_for_equal_images(self) -> None:
        """One image a set, and sets of equal images, have finite values."""
        for count in (1, 2, 40):
            equal = torch.full((count, 8), 0.3)
            for samples in (equal, self.rows(count, 2)):
                found = self.values(equal, self.rows(count, 1), samples)
                assert all(isinstance(v, float) and math.isfinite(v) for v in found.values())

    def test_inputs_are_left_alone_and_nothing_is_drawn(self) -> None:
        """Rows are not changed in place, no random numbers are drawn, values repeat."""
        sets = [self.rows(50, seed) for seed in range(3)]
        copies, state = [rows.clone() for rows in sets], torch.get_rng_state()
        first = self.values(*sets)
        assert all(torch.equal(a, b) for a, b in zip(sets, copies, strict=True))
        assert torch.equal(torch.get_rng_state(), state)
        assert self.values(*sets) == first
