"""Copying, image by image: distances to training images against those of unseen real images.

The distance of an image to its nearest training image is divided by the mean of its distances to
the 10 next patients, as Carlini et al., "Extracting training data from diffusion models", USENIX
Security 2023, section 4.2, divide by those to its neighbours: a smooth image is near to many
patients and copies none, a copy is near to one alone. Unseen real images have such relative
distances too; a synthetic image is *near* if its own is below their quantile.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gemix.core.rng import Stream, sample_rng
from gemix.evaluation.privacy.draws import Draw
from gemix.evaluation.privacy.membership import LEVEL, RESAMPLES
from gemix.io.audit_record import NearImages

NEXT = 10  # patients
_AT_A_TIME = 250  # resamples; bounds the memory


def relative_distances(distances: Tensor) -> Tensor:
    """Return the distance to the nearest patient over the mean of those to the next 10.

    Args:
        distances: to the nearest training image of each patient, [N, P].

    Returns:
        float64 [N], 0 to 1; all 1 for a single patient.
    """
    nearest = distances.double().topk(min(NEXT + 1, distances.shape[1]), largest=False).values
    if nearest.shape[1] == 1:
        return torch.ones_like(nearest[:, 0])
    next_mean = nearest[:, 1:].mean(dim=1)
    return torch.where(next_mean > 0, nearest[:, 0] / next_mean, 1.0)


def near_images(
    space: str,
    synthetic: np.ndarray,
    held_out: np.ndarray,
    held_out_patients: np.ndarray,
    *,
    quantile: float,
    seed: int,
) -> NearImages:
    """Return the share of synthetic images below a quantile of the held-out ones.

    Its 95% interval is that of a bootstrap which draws held-out patients, since the quantile
    depends on them, and a binomial number of near images.

    Args:
        synthetic, held_out: relative distances [N] and [M].
        held_out_patients: int64 [M]; whole patients are resampled.
    """
    limit = np.quantile(held_out, quantile, method="lower")
    ordered = np.sort(synthetic)
    _, patient, counts = np.unique(held_out_patients, return_inverse=True, return_counts=True)
    by_distance = np.argsort(held_out, kind="stable")
    rng = sample_rng(seed, Stream.AUDIT, step=Draw.NEAR)
    limits = []
    for start in range(0, RESAMPLES, _AT_A_TIME):
        size = (min(_AT_A_TIME, RESAMPLES - start), len(counts))
        drawn = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=size[0])
        weights = np.cumsum(drawn[:, patient[by_distance]], axis=1)
        # as the quantile above: the last image that at most this share of the others lies below
        place = (weights <= quantile * (weights[:, -1:] - 1)).sum(axis=1)
        limits.append(held_out[by_distance][place])
    shares = np.searchsorted(ordered, np.concatenate(limits), side="left") / len(ordered)
    draws = rng.binomial(len(ordered), shares) / len(ordered)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return NearImages(
        space=space,
        expected=quantile,
        share=float(np.searchsorted(ordered, limit, side="left") / len(ordered)),
        low=float(low),
        high=float(high),
    )
