"""The interface of a privacy audit: what generated images give away of the training set."""

from __future__ import annotations

import abc
import dataclasses
import functools
from typing import ClassVar

from torch import Tensor

from gemix.evaluation.image_quality.nearest_neighbors import nearest

NEIGHBORS = 3  # training images that are shown beside a sample


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditOutput:
    """One value that an audit returns, and how it is shown.

    Attributes:
        name: key in ``metrics.json``.
        label: name for readers.
        unseen: value that is expected where samples are like images of unseen patients.
        meaning: a sentence for readers, on larger and smaller values.
        format: format specification.
    """

    name: str
    label: str
    unseen: float
    meaning: str
    format: str = ".2f"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AuditSets:
    """The sets that an audit compares, as rows of one space: features, or flattened pixels.

    Attributes:
        training: images that the generator was trained on, [N, D].
        held_out: real images that it was not trained on, [K, D].
        samples: generated images, [M, D].
    """

    training: Tensor
    held_out: Tensor
    samples: Tensor

    @functools.cached_property
    def sample_neighbors(self) -> tuple[Tensor, Tensor]:
        """Distances to the 3 nearest training images, nearest first, and their rows: [M, 3]."""
        return nearest(self.samples, self.training, NEIGHBORS)

    @property
    def sample_distances(self) -> Tensor:
        """Distance of each sample to its nearest training image, float64 [M]."""
        return self.sample_neighbors[0][:, 0]

    @functools.cached_property
    def held_out_distances(self) -> Tensor:
        """Distance of each held-out image to its nearest training image, float64 [K]."""
        return nearest(self.held_out, self.training, 1)[0][:, 0]


class PrivacyAudit(abc.ABC):
    """A privacy audit; :mod:`gemix.evaluation.privacy.testing` holds its contract.

    Attributes:
        outputs: what it returns.
    """

    outputs: ClassVar[tuple[AuditOutput, ...]]

    @abc.abstractmethod
    def compute(self, sets: AuditSets) -> dict[str, float]:
        """Return a finite value for each of `outputs`.

        Args:
            sets: none of them empty, all on one device.
        """
