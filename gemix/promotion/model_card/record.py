"""``model_card.json``: the card of a classifier, for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from gemix.classifier.bundle import Classifier
from gemix.promotion.config import CardConfig

CARD, CARD_TEXT = "model_card.json", "model_card.md"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rate:
    """A rate on the test images, with its 95% interval over patients."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassRow:
    """A class on the test images.

    Attributes:
        groups: patients, or groups that stand for them, with images of the class.
        recall, precision: None without images; the false-negative rate is 1 - recall.
    """

    name: str
    images: int
    groups: int
    recall: Rate | None
    precision: Rate | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TestRow:
    """The test images.

    Attributes:
        digest: of their content.
        groups: patients, or groups that stand for them.
        healthy_class: None if there is none.
        openings: how often they have been predicted by now.
    """

    __test__ = False  # for pytest

    digest: str
    images: int
    groups: int
    healthy_class: str | None
    openings: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataRow:
    """The real images, as the dataset card has them.

    Attributes:
        source: in words.
        digest: of all splits.
        images: of each class in train, val, test and all.
        groups: likewise; None where they are not recorded.
        group_word: ``patients``, or ``groups`` where patients are not known.
        grouping: how groups were found; None where that is not recorded.
        selection: (step, number) from the scans listed to the images used.
        settings: (name, value) of the preparation.
        unknown: what is not recorded, a sentence each.
    """

    source: str
    digest: str
    images: Mapping[str, tuple[int, ...]]
    groups: Mapping[str, tuple[int, ...]] | None
    group_word: str
    grouping: str | None
    selection: Mapping[str, int]
    settings: Mapping[str, str]
    unknown: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticRow:
    """A synthetic set that the classifier was trained on.

    Attributes:
        generator: checksum of its weights; None where the set names none.
        synthesis: settings, such as who gave the labels; none that names a directory.
        verdict: of the privacy audit of exactly this set; None where there is none.
        reasons: of the verdict.
    """

    name: str
    digest: str
    images: int
    generator: str | None
    synthesis: Mapping[str, Any]
    verdict: str | None
    reasons: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecisionRow:
    """How logits become probabilities, and probabilities a class.

    Attributes:
        temperature: that divides the logits; 1 where they are not calibrated.
        rule, level: by which the threshold was chosen on validation images.
        healthy_class: whose complement is the probability of disease.
        threshold: of the probability of disease; None for the most probable class.
    """

    temperature: float
    rule: str | None
    level: float | None
    healthy_class: str | None
    threshold: float | None

    @classmethod
    def of(cls, classifier: Classifier) -> Self:
        """Return the decision of a classifier."""
        found = classifier.decision
        has_threshold = found.threshold is not None and found.normal is not None
        return cls(
            temperature=found.temperature,
            rule=found.config and found.config.rule,
            level=found.config.level if found.config and has_threshold else None,
            healthy_class=None if found.normal is None else classifier.classes[found.normal],
            threshold=found.threshold if has_threshold else None,
        )

    def __str__(self) -> str:
        scale = f"softmax of the logits over a temperature of {self.temperature:.3f}"
        if self.threshold is None:
            return f"the class of the highest probability ({scale}); no threshold"
        why = "" if self.rule is None else f", chosen for {self.rule} {self.level:g} on validation"
        return (
            f"the most probable disease where all together have a probability of "
            f"{self.threshold:.4f} or more{why}, else {self.healthy_class} ({scale})"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClaimItem:
    """An item of the CLAIM checklist.

    Attributes:
        answer: what a run can say; None if nothing.
        open: what people have to add; None if nothing.
    """

    number: int
    title: str
    answer: str | None
    open: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelCard:
    """``model_card.json``.

    Attributes:
        gemix: its version.
        model, version: in the MLflow registry.
        checksum: of the weights.
        method: what it was trained on.
        architecture: the network.
        training: settings of its training; `weights` is a file's name without its directory.
        training_digest: of the images that it was trained on.
        validation: scores of the epoch that was kept, on the validation images, of the most
            probable class whatever the decision is.
        written: what a person says of it.
        rates: on the test images, the most important first.
        ece: expected calibration error of the probabilities, 0 to 1.
        decision: how an image gets its class.
        synthetic: empty if it was trained on real images alone.
        limits: that a program knows, a sentence each.
        software: versions.
        claim: all items of CLAIM.
        lacks: what is missing for a complete card.
    """

    gemix: str
    model: str
    version: str
    checksum: str
    method: str
    seed: int
    architecture: str
    training: Mapping[str, Any]
    training_digest: str
    validation: Mapping[str, float]
    written: CardConfig
    data: DataRow
    test: TestRow
    rates: Mapping[str, Rate]
    classes: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, ...], ...]
    ece: float
    decision: DecisionRow
    synthetic: tuple[SyntheticRow, ...]
    limits: tuple[str, ...]
    software: Mapping[str, str]
    claim: tuple[ClaimItem, ...] = ()
    lacks: tuple[str, ...] = ()
