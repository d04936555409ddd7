"""Remove images that are copies of training images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from gemix.data.leakage.near_duplicates import find_copies
from gemix.data.leakage.perceptual_hash import thumbnails
from gemix.evaluation.privacy.near_images import relative_distances
from gemix.evaluation.privacy.spaces import (
    FeatureSpace,
    PixelSpace,
    Space,
    patient_distances,
    rows_of,
)
from gemix.synthesis.curation.base import Candidates, CurationRule

if TYPE_CHECKING:
    from gemix.synthesis.curation.config import CurationConfig


class Memorized(CurationRule):
    """The images that the privacy audit calls copies, by pixels and by features.

    Those are resaved, brightened or mirrored training images, and images less than half as far
    from one training patient, beside the others, as any real image is from another patient
    (:mod:`gemix.evaluation.privacy.near_images`). It makes no generator private: one that copies
    some images gives away others in ways that no distance shows.
    """

    name = "memorized"
    meaning = "a copy of a training image"
    compares_with_training = True

    def removes(self, candidates: Candidates, config: CurationConfig) -> np.ndarray:
        """See :class:`CurationRule`."""
        found = np.zeros(len(candidates.images), bool)
        own = thumbnails(candidates.images)
        for learned in candidates.learned_thumbnails():
            found |= find_copies(own, learned)
        spaces = PixelSpace(candidates.extractor.device), FeatureSpace(candidates.extractor)
        for space in spaces:
            found |= _is_copy(space, candidates)
        return found


def _is_copy(space: Space, candidates: Candidates) -> np.ndarray:
    training = candidates.training
    target = rows_of(space, training.images)
    names, numbers = np.unique(training.patients, return_inverse=True)
    if len(names) < 3:  # no real image has another patient, and others beside that one
        return np.zeros(len(candidates.images), bool)
    patients = torch.from_numpy(numbers.astype(np.int64)).to(target.device)
    of_images, of_real = (
        patient_distances(space.views(images), target, patients, len(names))
        for images in (candidates.images, training.images)
    )
    of_real[torch.arange(len(patients), device=target.device), patients] = torch.inf
    limit = relative_distances(of_real).min() / 2
    return (relative_distances(of_images) < limit).cpu().numpy()
