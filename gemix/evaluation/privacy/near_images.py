"""Copying, image by image: distances to training images against those between real images.

The distance of an image to its nearest training image is divided by the mean of its distances to
the 10 next patients, as Carlini et al., "Extracting training data from diffusion models", USENIX
Security 2023, section 4.2, divide by those to its neighbours: a smooth image is near to many
patients and copies none, a copy is near to one alone. Real images have such relative
distances to the training images of other patients too; a synthetic image is *near* if its own is
below a quantile of theirs, and a copy if it is below half of them all.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import beta, binomtest
from torch import Tensor

from gemix.core.rng import Stream, sample_rng
from gemix.evaluation.privacy.draws import Draw
from gemix.evaluation.privacy.membership import LEVEL
from gemix.io.audit_record import NearImages

NEXT = 10  # patients


def relative_distances(distances: Tensor) -> Tensor:
    """Return the distance to the nearest patient over the mean of those to the next 10.

    Args:
        distances: to the nearest training image of each patient, [N, P]; infinite for the own.

    Returns:
        float64 [N], 0 to 1; 1 for a single patient, and where all distances are 0.
    """
    nearest = distances.double().topk(min(NEXT + 1, distances.shape[1]), largest=False).values
    if nearest.shape[1] == 1:
        return torch.ones_like(nearest[:, 0])
    others = nearest[:, 1:]
    is_there = others.isfinite()
    next_mean = others.where(is_there, 0).sum(dim=1) / is_there.sum(dim=1)
    return torch.where(next_mean > 0, nearest[:, 0] / next_mean, 1.0)


def near_images(
    space: str,
    synthetic: np.ndarray,
    real: np.ndarray,
    patients: np.ndarray,
    *,
    quantile: float,
    seed: int,
) -> NearImages:
    """Return the share of synthetic images below a quantile of the real ones.

    The quantile is that of one image of each patient, drawn at random: for independent values the
    share of real images below the k-th smallest of n has the distribution Beta(k, n + 1 - k), so
    what few patients leave open is known exactly. So is the binomial interval of the share of
    synthetic images (Clopper and Pearson 1934).

    Args:
        synthetic, real: relative distances [N] and [M].
        patients: of the real images, int64 [M].
        quantile: share of the real images that count as near; one of them at least does.
        seed: of the choice of their images.
    """
    order = sample_rng(seed, Stream.AUDIT, step=Draw.NEAR).permutation(len(real))
    _, first = np.unique(patients[order], return_index=True)
    unseen = np.sort(real[order[first]])
    place = max(1, int(quantile * (len(unseen) + 1)))
    near = int((synthetic < unseen[place - 1]).sum())
    interval = binomtest(near, len(synthetic)).proportion_ci(LEVEL, method="exact")
    return NearImages(
        space=space,
        expected=place / (len(unseen) + 1),
        expected_high=float(beta.ppf((1 + LEVEL) / 2, place, len(unseen) + 1 - place)),
        share=near / len(synthetic),
        low=float(interval.low),
        high=float(interval.high),
    )
