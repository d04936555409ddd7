"""``card.json``: the card of a synthetic set, for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from gemix.evaluation.label_fidelity.measure import Proportion
from gemix.io.audit_record import Audit
from gemix.io.records import others, read_record
from gemix.io.results import Difference
from gemix.io.storage import Store
from gemix.synthesis.curation.record import Curation

CARD, CARD_TEXT = "card.json", "card.md"
SYNTHETIC = "synthetic"  # a name of images beside those of the real splits


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Training images of generator and teachers, by the provenance record of the set.

    Attributes:
        digests: content digests of the training splits.
        images: number of them.
        groups: patients, or groups that stand for them.
        unknown: training sets that are not on record; above 0, the numbers are too small.
        source: the source of the images, in words, where they are at hand; else None.
        is_drawn: whether a program drew them all; None where that is not known.
        is_withheld: whether the record stays with its owner, and does not go with the set.
    """

    digests: tuple[str, ...]
    images: int
    groups: int
    unknown: int
    source: str | None = None
    is_drawn: bool | None = None
    is_withheld: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetClass:
    """A class of the set.

    Attributes:
        name: of the class.
        images: whose label is mostly this class.
        drawn: images drawn when it was most asked for, rejected ones included; None where that is
            not on record.
    """

    name: str
    images: int
    drawn: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherSummary:
    """Label fidelity as one teacher sees it.

    Attributes:
        name: of the teacher.
        agreement: share of images that show the class most asked for.
        expected_agreement: the share if the labels asked for were calibrated.
        calibration_error: mean distance of weights asked and seen, 0 to 1.
        ceiling: share of real validation images on which the teacher is right.
        by_class: agreement of the images of each class asked for.
    """

    name: str
    agreement: Proportion
    expected_agreement: float
    calibration_error: float
    ceiling: Proportion
    by_class: Mapping[str, Proportion]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageComparison:
    """Image metrics of some images against a split of real ones.

    Attributes:
        of: the images: ``synthetic``, or the real split ``val``, which is what to compare with.
        against: the real split, ``train`` or ``val``.
        digest: content digest of the real split `against`.
        images, real_images: how many of each were compared.
        extractor: of the features.
        problem: why there are no metrics; None where there are.
        metrics: beside the other fields in the file.
    """

    of: str
    against: str
    digest: str
    images: int
    real_images: int
    extractor: str
    problem: str | None = None
    metrics: Mapping[str, float | None] = others()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferRate:
    """A rate on real test images of classifiers trained on real, and on synthetic images alone."""

    rate: str
    real: float | None
    synthetic: float | None
    difference: Difference | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transfer:
    """Train on synthetic, test on real, beside real on real.

    Attributes:
        test_digest: of the real test images; None in evaluations of earlier versions.
        images: of the test.
        seeds: trainings that the rates are means of.
        rates: the first one is the most important.
    """

    test_digest: str | None
    images: int | None
    seeds: int
    rates: tuple[TransferRate, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditVerdict:
    """The part of ``audit.json`` that the card shows.

    Attributes:
        set_digest: of the set that was audited.
        verdict: in a word: ``passed``, ``failed``, ``undecided``.
        reasons: a sentence each.
    """

    set_digest: str
    verdict: str
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, audit: Audit) -> Self:
        """Return what a card shows of an audit."""
        return cls(set_digest=audit.set_digest, verdict=audit.verdict, reasons=audit.reasons)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetCard:
    """``card.json``.

    Attributes:
        version: of gemix.
        digest: of the set; a card of another digest is out of date.
        method: name of the label sampler.
        generator: checksum of its weights; None where the set names none.
        generator_kimg: length of its training.
        precision: that the images were computed in.
        labels, synthesis: the settings.
        fidelity: one a teacher, the first one gave labels; empty where nobody looked.
        comparisons: image metrics.
        transfer: None where it was not measured.
        audit: None where the set was not audited as it is.
        curation: None where nothing was left out of the set.
    """

    version: str
    digest: str
    method: str
    images: int
    resolution: int
    channels: int
    classes: tuple[SetClass, ...]
    generator: str | None
    generator_kimg: float | None
    precision: str | None
    training_data: TrainingData
    labels: Mapping[str, Any]
    synthesis: Mapping[str, Any]
    fidelity: tuple[TeacherSummary, ...]
    comparisons: tuple[ImageComparison, ...]
    transfer: Transfer | None
    audit: AuditVerdict | None
    intended_use: tuple[str, ...]
    limits: tuple[str, ...]
    curation: Curation | None = None


def read_card(store: Store, digest: str) -> SetCard | None:
    """Read the card of a set.

    Args:
        digest: of the set as it is, as its manifest has it.

    Returns:
        None where there is none, or where it is of another version of the set.

    Raises:
        DataError: if it is damaged.
    """
    if not store.exists(CARD):
        return None
    found = read_record(store, CARD, SetCard, "run gemix card --overwrite, or delete it")
    return found if found.digest == digest else None
