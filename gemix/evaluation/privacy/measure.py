"""Measure what a set of synthetic images gives away, in one space."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from gemix.core.rng import Stream, sample_rng
from gemix.evaluation.privacy.draws import Draw
from gemix.evaluation.privacy.membership import control_auc, membership_auc
from gemix.evaluation.privacy.near_images import near_images, relative_distances
from gemix.evaluation.privacy.spaces import Space, patient_distances, rows_of
from gemix.io.audit_record import MembershipAttack, NearImages

NEAREST, CALIBRATED = "nearest", "calibrated"
WORST = 12  # pairs that are shown
_SMALLEST = 1e-6  # distance; logarithms of exact copies stay finite


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RealSample:
    """Real images with their patients.

    Attributes:
        images: uint8 [N, C, H, W].
        patients: int64 [N]; equal numbers are one patient (or group of neighbours), in all samples
            of an audit.
    """

    images: np.ndarray
    patients: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @property
    def patient_count(self) -> int:
        """Number of different patients."""
        return len(np.unique(self.patients))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpaceFindings:
    """Findings in one space.

    Attributes:
        relative: relative distance of each synthetic image, float64 [M].
        is_copy: whether it is below half of all that real images have to other patients, bool [M].
        worst: rows of the synthetic images of the smallest relative distances, int64 [12].
        nearest: row of the training image nearest to each of these, int64 [12].
    """

    near: tuple[NearImages, ...]
    attacks: tuple[MembershipAttack, ...]
    relative: np.ndarray
    is_copy: np.ndarray
    worst: np.ndarray
    nearest: np.ndarray


def measure(
    space: Space,
    synthetic: np.ndarray,
    training: RealSample,
    members: RealSample,
    held_out: RealSample,
    *,
    quantile: float,
    seed: int,
) -> SpaceFindings:
    """Measure copying and membership.

    Args:
        synthetic: uint8 [M, C, H, W].
        training: real images that were learned from; the nearest are searched in them.
        members: some of them, whose membership is inferred.
        held_out: real images of other patients; none of the sets is empty.
        quantile: share of the real images that count as near; the nearest one always does.
        seed: of the bootstrap and of halves.
    """
    target = rows_of(space, training.images)
    patients, count = _numbered(training.patients, target)
    rows, views = _with_first(space, synthetic)
    relative = relative_distances(patient_distances(views, target, patients, count)).cpu().numpy()
    worst = np.argsort(relative, kind="stable")[:WORST]
    each = torch.arange(len(target), device=target.device)
    of_worst = patient_distances(space.views(synthetic[worst]), target, each, len(target))
    held_rows, held_views = _with_first(space, held_out.images)
    member_rows, member_views = _with_first(space, members.images)
    stands_in = _half(members.patients, seed)
    held, held_count = _numbered(held_out.patients, target)
    # the synthetic images are one "patient", then come those held out, and last the half of the
    # members that stands in for synthetic images
    others = torch.cat([rows, held_rows, member_rows[torch.from_numpy(stands_in)]])
    columns = torch.cat(
        [
            held.new_zeros(len(rows)),
            held + 1,
            held.new_full((int(stands_in.sum()),), held_count + 1),
        ]
    )
    of_members, of_held_out = (
        patient_distances(
            real_views,
            torch.cat([others, target]),
            torch.cat([columns, patients + held_count + 2]),
            held_count + 2 + count,
        )
        for real_views in (member_views, held_views)
    )
    (inside, members_beside), (outside, held_out_beside) = (
        (found[:, : held_count + 2].cpu().numpy(), found[:, held_count + 2 :])
        for found in (of_members, of_held_out)
    )
    own = np.searchsorted(np.unique(training.patients), members.patients)
    members_beside[torch.arange(len(own)), torch.from_numpy(own)] = torch.inf
    real = torch.cat([relative_distances(found) for found in (members_beside, held_out_beside)])
    real = real.cpu().numpy()
    real_patients = np.concatenate([members.patients, held_out.patients])
    return SpaceFindings(
        near=tuple(
            near_images(space.name, relative, real, real_patients, quantile=level, seed=seed)
            for level in (quantile, 0.0)
        ),
        attacks=_attacks(
            space.name, inside, outside, members.patients, held.cpu().numpy(), stands_in, seed
        ),
        relative=relative,
        is_copy=relative < real.min() / 2,
        worst=worst,
        nearest=of_worst.argmin(dim=1).cpu().numpy(),
    )


def _attacks(
    space: str,
    of_members: np.ndarray,
    of_held_out: np.ndarray,
    members: np.ndarray,
    held_out: np.ndarray,
    stands_in: np.ndarray,
    seed: int,
) -> tuple[MembershipAttack, ...]:
    """Attack with distances to the synthetic images, alone and beside those to real ones.

    Args:
        of_members, of_held_out: distances to the synthetic images (column 0), to each held-out
            patient (columns 1 to P) and to the members that stand in for synthetic images (last).
        members, held_out: their patients; those held out numbered from 0 to P - 1.
        stands_in: which members do, bool [N].
    """
    count, kept = int(held_out.max()) + 1, ~stands_in
    found = []
    for name in (NEAREST, CALIBRATED) if count > 1 else (NEAREST,):
        inside, outside = _scores(name, of_members, of_held_out, 0, members, held_out, seed)
        shift = None
        if stands_in.any():
            shift = membership_auc(
                *_scores(name, of_members[kept], of_held_out, -1, members[kept], held_out, seed),
                members[kept],
                held_out,
                seed=seed,
            )
        attack = MembershipAttack(
            space=space,
            attack=name,
            result=membership_auc(inside, outside, members, held_out, seed=seed),
            control=control_auc(inside, members, count, seed=seed),
            shift=shift,
        )
        found.append(attack)
    return tuple(found)


def _scores(
    attack: str,
    of_members: np.ndarray,
    of_held_out: np.ndarray,
    column: int,
    members: np.ndarray,
    held_out: np.ndarray,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of members and held-out images by the distance in a column.

    The calibrated score is log(distance to other real images / that distance). A held-out image
    cannot be compared with its own patient, which a member would not miss; so one held-out patient
    is left out for each member too, and both have the same number of references.
    """
    if attack == NEAREST:
        return -of_members[:, column], -of_held_out[:, column]
    count = int(held_out.max()) + 1
    _, member = np.unique(members, return_inverse=True)
    rng = sample_rng(seed, Stream.AUDIT, step=Draw.REFERENCES)
    left_out = rng.integers(count, size=member.max() + 1)[member]
    scores = []
    for distances, without in ((of_members, left_out), (of_held_out, held_out)):
        references = distances[:, 1 : count + 1].copy()
        references[np.arange(len(references)), without] = np.inf
        ratio = np.maximum(references.min(axis=1), _SMALLEST) / np.maximum(
            distances[:, column], _SMALLEST
        )
        scores.append(np.log(ratio))
    return scores[0], scores[1]


def _half(patients: np.ndarray, seed: int) -> np.ndarray:
    """Choose half of the patients: bool [N], which images are theirs."""
    names = np.unique(patients)
    rng = sample_rng(seed, Stream.AUDIT, step=Draw.HALVES)
    return np.isin(patients, rng.permutation(names)[: len(names) // 2])


def _with_first(space: Space, images: np.ndarray) -> tuple[Tensor, Iterator[Tensor]]:
    """Return the rows of the images as they are, and all of their views."""
    views = space.views(images)
    first = next(views)
    return first, itertools.chain([first], views)


def _numbered(patients: np.ndarray, like: Tensor) -> tuple[Tensor, int]:
    """Return the patients numbered from 0, on the device of a tensor, and how many there are."""
    names, numbers = np.unique(patients, return_inverse=True)
    return torch.from_numpy(numbers.astype(np.int64)).to(like.device), len(names)
