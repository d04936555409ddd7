"""The contract of a relabelling, as a test class to subclass (pytest collects it)::

class TestMyRelabelling(RelabellingContract):
    relabelling = staticmethod(my_relabelling)
"""

from __future__ import annotations

import numpy as np

from gemix.comparison.relabel.base import Labels, Relabelling


class RelabellingContract:
    """Contract of a relabelling; subclass it and set `relabelling`."""

    relabelling: Relabelling

    def labels(self, synthetic: int = 40) -> Labels:
        """Return one-hot labels of 30 real images and soft ones of synthetic images."""
        rng = np.random.default_rng(0)
        soft, asked = rng.dirichlet([0.5] * 3, (2, synthetic)).astype(np.float32)
        real = np.eye(3, dtype=np.float32)[np.arange(30) % 3]
        reference = np.concatenate([real, rng.dirichlet([0.5] * 3, 30).astype(np.float32)])
        return Labels(real=real, synthetic=soft, asked=asked, reference=reference)

    def test_labels_are_distributions(self) -> None:
        """Shapes and types stay, rows sum to 1; a set without synthetic images too."""
        for count in (40, 0):
            labels = self.labels(count)
            found = self.relabelling(labels)
            for before, after in zip((labels.real, labels.synthetic), found, strict=True):
                assert after.shape == before.shape and after.dtype == np.float32
                assert (after >= 0).all()
                np.testing.assert_allclose(after.sum(axis=1), 1, atol=1e-5)

    def test_the_class_of_a_real_image_stays(self) -> None:
        """The dominant class is kept; only its weight may change."""
        labels = self.labels()
        real, _ = self.relabelling(labels)
        assert (real.argmax(axis=1) == labels.real.argmax(axis=1)).all()

    def test_inputs_are_left_alone(self) -> None:
        """Arrays are not changed in place: other methods use the same ones."""
        labels, untouched = self.labels(), self.labels()
        self.relabelling(labels)
        assert (labels.real == untouched.real).all()
        assert (labels.synthetic == untouched.synthetic).all()
        assert (labels.asked == untouched.asked).all()
