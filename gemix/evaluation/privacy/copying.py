"""Audit of data copying: are generated images nearer to the training set than unseen ones?"""

from __future__ import annotations

import torch
from torch import Tensor

from gemix.evaluation.privacy.base import AuditOutput, AuditSets, PrivacyAudit

NEAR = 0.05  # share of held-out images that count as near


class Copying(PrivacyAudit):
    """Compare distances to the nearest training image: of samples, and of held-out real images.

    `copying_auc` is the Mann-Whitney statistic of Meehan et al., "A non-parametric test to detect
    data-copying in generative models", 2020, over the whole space as one cell; ties count half.
    `near_fraction` is the share of samples nearer than the nearest 5% of the held-out images.
    """

    outputs = (
        AuditOutput(
            name="copying_auc",
            label="Copying AUC",
            unseen=0.5,
            meaning="probability that a sample is nearer to its nearest training image than a "
            "held-out image is; towards 1 the generator copies, towards 0 it stays farther away "
            "than real scans do",
        ),
        AuditOutput(
            name="near_fraction",
            label="Near samples",
            unseen=NEAR,
            meaning="share of samples that are nearer to their nearest training image than the "
            "nearest 5% of the held-out images are",
            format=".1%",
        ),
    )

    def compute(self, sets: AuditSets) -> dict[str, float]:
        """Return `copying_auc` and `near_fraction`, each in [0, 1]."""
        return {
            "copying_auc": mann_whitney_auc(sets.sample_distances, sets.held_out_distances),
            "near_fraction": near_fraction(sets.sample_distances, sets.held_out_distances),
        }


def mann_whitney_auc(samples: Tensor, held_out: Tensor) -> float:
    """Return the probability that a value of `samples` is below one of `held_out`.

    Args:
        samples, held_out: [N] and [M]; ties count half.
    """
    ordered, values = held_out.double().sort().values, samples.double().contiguous()
    below = torch.searchsorted(ordered, values)
    up_to = torch.searchsorted(ordered, values, right=True)
    farther = len(ordered) - (below + up_to) / 2
    return (farther / len(ordered)).mean().item()


def near_fraction(samples: Tensor, held_out: Tensor) -> float:
    """Return the share of `samples` below the 5% quantile of `held_out`."""
    limit = torch.quantile(held_out.double(), NEAR)
    return (samples.double() < limit).double().mean().item()
