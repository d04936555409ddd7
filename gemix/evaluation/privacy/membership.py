"""Membership inference: can an outsider tell whose images a generator was trained on?

The outsider has the synthetic images alone. A real image scores high if a synthetic one is near
(`nearest`: Chen et al., "GAN-Leaks", CCS 2020, full black box), or nearer than other real images
are (`calibrated`: the density ratio of van Breugel et al., "Membership inference attacks against
synthetic data through overfitting detection" (DOMIAS), AISTATS 2023, with nearest distances for
densities). The AUC is that of members, which were trained on, against held-out images.

Two comparisons tell a leak from what would look like one:

- the *control*, members against other members, in groups of as many patients as are held out: 0.5,
  and how far the choice of patients alone takes an AUC from it;
- the *shift*, members against held-out images by their distance to the real images of the other
  half of the members, with no generator at all: 0.5 unless the held-out patients are of another
  kind (another hospital, another mix of classes), which an attack would mistake for membership.

Intervals come from a bootstrap over patients (see
:mod:`gemix.evaluation.classification.bootstrap`): slices of one patient are nearly equal.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from gemix.core.rng import Stream, sample_rng
from gemix.evaluation.privacy.draws import Draw
from gemix.io.audit_record import Auc

RESAMPLES = 2000
LEVEL = 0.95
_AT_A_TIME = 250  # resamples; bounds the memory


def membership_auc(
    members: np.ndarray,
    others: np.ndarray,
    member_patients: np.ndarray,
    other_patients: np.ndarray,
    *,
    seed: int,
) -> Auc:
    """Return the AUC of the scores of members against others, with its 95% interval.

    Args:
        members, others: scores [N] and [M], higher where membership is likelier; ties count half.
        member_patients, other_patients: int64 [N] and [M]; whole patients are resampled.
        seed: of the bootstrap.
    """
    wins, pairs = _wins(members, member_patients, others, other_patients)
    rng = sample_rng(seed, Stream.AUDIT, step=Draw.BOOTSTRAP)
    draws = []
    for start in range(0, RESAMPLES, _AT_A_TIME):
        count = min(_AT_A_TIME, RESAMPLES - start)
        rows, columns = (
            rng.multinomial(size, np.full(size, 1 / size), size=count).astype(np.float64)
            for size in wins.shape
        )
        draws.append(((rows @ wins) * columns).sum(1) / ((rows @ pairs) * columns).sum(1))
    return _with_interval(wins.sum() / pairs.sum(), np.concatenate(draws))


def control_auc(scores: np.ndarray, patients: np.ndarray, held_out: int, *, seed: int) -> Auc:
    """Return the AUC of members against other members, over random choices of the others.

    Args:
        scores: of members, [N].
        patients: int64 [N].
        held_out: patients to set aside as the others; at most half of all are.

    Returns:
        The mean over the choices and the interval that holds 95% of them.
    """
    _, patient, counts = np.unique(patients, return_inverse=True, return_counts=True)
    total = len(counts)
    aside = min(held_out, total // 2)
    if aside == 0:
        return Auc(auc=0.5, low=0.0, high=1.0)
    # the scores that are ranked are the same for every choice, so ranks are too
    ranks = np.bincount(patient, rankdata(scores), minlength=total)
    rng = sample_rng(seed, Stream.AUDIT, step=Draw.CONTROL)
    draws = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        is_member = np.ones(total, bool)
        is_member[rng.permutation(total)[:aside]] = False
        inside = counts[is_member].sum()
        above = ranks[is_member].sum() - inside * (inside + 1) / 2
        draws[index] = above / (inside * (len(scores) - inside))
    return _with_interval(draws.mean(), draws)


def _wins(
    members: np.ndarray, member_patients: np.ndarray, others: np.ndarray, other_patients: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of images that the member wins, and all: float64 [P, Q] by patients."""
    _, row, row_counts = np.unique(member_patients, return_inverse=True, return_counts=True)
    _, column, column_counts = np.unique(other_patients, return_inverse=True, return_counts=True)
    order = np.argsort(others, kind="stable")
    ordered = others[order]
    # images of each patient among the lowest i
    below = np.zeros((len(others) + 1, len(column_counts)), np.float32)
    below[np.arange(1, len(others) + 1), column[order]] = 1
    np.cumsum(below, axis=0, out=below)
    wins = np.zeros((len(row_counts), len(column_counts)))
    for side in ("left", "right"):
        places = np.searchsorted(ordered, members, side=side)
        for patient in range(len(row_counts)):
            wins[patient] += below[places[row == patient]].sum(axis=0) / 2
    return wins, np.outer(row_counts, column_counts).astype(np.float64)


def _with_interval(value: float, draws: np.ndarray) -> Auc:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Auc(auc=float(value), low=float(low), high=float(high))
