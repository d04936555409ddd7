"""Remove images that are nearly the same as an earlier one of the set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gemix.evaluation.image_quality.nearest_neighbors import distance_blocks
from gemix.synthesis.curation.base import Candidates, CurationRule

if TYPE_CHECKING:
    from gemix.synthesis.curation.config import CurationConfig

_ROWS = 2048


class NearDuplicate(CurationRule):
    """Two images are near duplicates if their features are nearer than real patients' are.

    The limit is a quantile of the distances of real images to the nearest image of another
    patient. The first image of a group of duplicates stays.
    """

    name = "near_duplicate"
    meaning = "nearly the same as an earlier image of the set, by features"

    def removes(self, candidates: Candidates, config: CurationConfig) -> np.ndarray:
        """See :class:`CurationRule`."""
        patients = torch.from_numpy(candidates.training.patients)
        apart = distances_to_other_patients(candidates.training_features, patients)
        apart = apart[apart.isfinite()]
        if not len(apart):  # one patient
            return np.zeros(len(candidates.images), bool)
        return duplicates(candidates.features, float(apart.quantile(config.near_quantile)))


def distances_to_other_patients(features: Tensor, patients: Tensor) -> Tensor:
    """Return the distance of each image to the nearest image of another patient, float64 [N].

    Infinite where there is no other patient.
    """
    patients = patients.to(features.device)
    found = torch.full((len(features),), torch.inf, dtype=torch.float64, device=features.device)
    for block in distance_blocks(features, features):
        own = patients[block.rows, None] == patients[None, block.columns]
        nearest = block.squared.masked_fill(own, torch.inf).min(dim=1).values
        found[block.rows] = torch.minimum(found[block.rows], nearest)
    return found.sqrt().cpu()


def duplicates(features: Tensor, limit: float) -> np.ndarray:
    """Return which rows are nearer than a limit to an earlier row that stays, bool [N]."""
    removed = torch.zeros(len(features), dtype=torch.bool)
    for start in range(0, len(features), _ROWS):
        rows = features[start : start + _ROWS]
        here = torch.zeros(len(rows), dtype=torch.bool)
        kept = features[:start][~removed[:start].to(features.device)]
        for block in distance_blocks(rows, kept) if len(kept) else ():
            here[block.rows] |= (block.squared < limit**2).any(dim=1).cpu()
        beside = torch.cat([b.squared < limit**2 for b in distance_blocks(rows, rows)]).cpu()
        for row in range(len(rows)):
            if not here[row]:
                here[row + 1 :] |= beside[row, row + 1 :]
        removed[start : start + len(rows)] = here
    return removed.numpy()
