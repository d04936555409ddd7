"""``audit.json``: what a privacy audit of a set of synthetic images found, and its verdict.

The file lies in the set's directory and goes where the set goes, so it names no real image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gemix.io.records import read_record
from gemix.io.storage import Store

AUDIT, AUDIT_PAIRS = "audit.json", "audit-pairs.png"
PASSED, FAILED, UNDECIDED = "passed", "failed", "undecided"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditedImages:
    """How many images and patients were compared.

    Attributes:
        synthetic, synthetic_total: images of the set that were compared, and all of it.
        training, members: images that the generator learned from: those in which nearest images
            were searched, and those of them whose membership was inferred.
        held_out: real images that it did not learn from, of other patients.
    """

    synthetic: int
    synthetic_total: int
    training: int
    training_patients: int
    members: int
    member_patients: int
    held_out: int
    held_out_patients: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedFrom:
    """Provenance of the images that the generator learned from.

    Attributes:
        is_on_record: whether the set has a record; else the train split is presumed.
        elsewhere: images on record that were not at hand; those of the zoo, which are phantoms and
            nobody's, are not counted.
        unknown: names of training images that are not on record.
    """

    is_on_record: bool
    elsewhere: int
    unknown: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copies:
    """Images that are copies of training images.

    Attributes:
        resaved: images of the set that are training images resaved, brightened or mirrored.
        held_out: held-out images that are; above 0, patients are too alike for this to tell.
        singular: images of the set that are nearer to one training patient, beside the others,
            than half of what any real image is to another patient.
    """

    resaved: int
    held_out: int
    singular: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearImages:
    """Share of synthetic images that are nearer to a training patient than real images are.

    Attributes:
        expected: share of real images that are expected to be as near to another patient.
        expected_high: what it may be for all that the patients at hand tell (97.5%).
        low, high: 95% interval of the share.
    """

    space: str
    expected: float
    expected_high: float
    share: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Auc:
    """Probability that a member scores above a non-member, with its 95% interval."""

    auc: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class MembershipAttack:
    """An attack on membership by the distance to the synthetic images.

    Attributes:
        attack: ``nearest``, or ``calibrated`` by the distance to other real images.
        control: the same attack, members against as many other members as there are held-out
            patients: expected 0.5, and how far chance takes it from there.
        shift: the same attack, where real images of half of the members stand in for the synthetic
            ones: 0.5 if the other members and the held-out patients are alike; None if there are
            too few members to halve.
    """

    space: str
    attack: str
    result: Auc
    control: Auc
    shift: Auc | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditFindings:
    """Everything that a verdict is derived from.

    Attributes:
        removed_near_training: images that curation took out of the set for being near to training
            images: distances of the others then say nothing of the generator.
    """

    images: AuditedImages
    learned_from: LearnedFrom
    copies: Copies
    near: tuple[NearImages, ...]
    attacks: tuple[MembershipAttack, ...]
    removed_near_training: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearPair:
    """A synthetic image that is near to a training image.

    Attributes:
        source: of the synthetic image, as the set names it.
        relative: distance to the training image over the mean distance to those of the 10 next
            patients.
        is_copy: whether it is counted among the copies.
    """

    source: str
    space: str
    relative: float
    is_copy: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audit:
    """``audit.json``.

    Attributes:
        set_digest: content digest of the audited version of the set.
        generator: checksum of its generator; None where the set names none.
        verdict: ``passed``, ``failed`` or ``undecided``.
        reasons: a sentence each.
        settings: of the audit, with digests of the real images.
        discriminator: the attack with the discriminator; None where it is not at hand. It is no
            part of the verdict, since no discriminator goes with a set.
        pairs: the worst, as ``audit-pairs.png`` in the work directory shows them.
    """

    set_digest: str
    generator: str | None = None
    verdict: str
    reasons: tuple[str, ...]
    findings: AuditFindings
    settings: Mapping[str, Any]
    discriminator: Auc | None = None
    pairs: tuple[NearPair, ...]


def read_audit(store: Store, set_digest: str) -> Audit | None:
    """Read the audit of a set.

    Args:
        store: the set's directory.
        set_digest: of the set as it is now, as its manifest has it.

    Returns:
        None where there is none, or where it is of another version of the set.

    Raises:
        DataError: if it is damaged.
    """
    if not store.exists(AUDIT):
        return None
    found = read_record(store, AUDIT, Audit, "run gemix audit --overwrite")
    return found if found.set_digest == set_digest else None
