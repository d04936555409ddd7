"""Remove images that lie far from all real ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gemix.evaluation.image_quality.nearest_neighbors import distance_blocks, radii
from gemix.synthesis.curation.base import Candidates, ScoreRule

NEIGHBORS = 3
_SMALLEST = 1e-12  # distance; a copy has a high score, not an infinite one


class Realism(ScoreRule):
    """The realism score of Kynkäänniemi et al., "Improved precision and recall metric for
    assessing generative models", 2019, equation 3: the largest radius of a real image's
    neighbourhood (k = 3) over the distance to it. At 1 and above the image lies in one.
    """

    name = "realism"
    meaning = "far from all real images, by features"

    def scores(self, candidates: Candidates) -> np.ndarray:
        """Return the realism scores, from 0 up."""
        return realism(candidates.training_features, candidates.features).cpu().numpy()


def realism(real: Tensor, fake: Tensor) -> Tensor:
    """Return the realism score of each generated image, float64 [N].

    Neighbourhoods of more than the median radius are left out, as in the paper: they are those of
    outliers among the real images.

    Args:
        real: features [M, D], more than one row.
        fake: features [N, D].
    """
    radius = radii(real, min(NEIGHBORS, len(real) - 1))[:, -1]
    small = radius <= radius.quantile(0.5)
    real, squared_radius = real[small], radius[small].square()
    best = torch.zeros(len(fake), dtype=torch.float64, device=fake.device)
    for block in distance_blocks(fake, real):
        ratio = squared_radius[block.columns] / block.squared.clamp_min(_SMALLEST)
        best[block.rows] = torch.maximum(best[block.rows], ratio.max(dim=1).values)
    return best.sqrt()
