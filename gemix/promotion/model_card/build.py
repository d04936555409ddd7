"""Fill the card of a classifier with what a run knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import gemix
from gemix.classifier.bundle import Classifier, without_folder
from gemix.classifier.models import ModelSpec
from gemix.core.environment import versions
from gemix.data.dataset_card.description import Description
from gemix.data.image_set import ImageSet
from gemix.data.shards.manifest import Manifest
from gemix.evaluation.classification.bootstrap import (
    Comparison,
    Resampled,
    groups_by_class,
    warn_of_few_groups,
)
from gemix.evaluation.classification.probability_rates import expected_calibration_error
from gemix.io.audit_record import Audit
from gemix.io.records import is_number
from gemix.promotion.config import CardConfig
from gemix.promotion.gate import ONE_TRAINING
from gemix.promotion.model_card.claim import claim_items
from gemix.promotion.model_card.record import (
    ClassRow,
    DataRow,
    DecisionRow,
    ModelCard,
    Rate,
    SyntheticRow,
    TestRow,
)
from gemix.synthesis.set_card.paths import without_paths

RATES = (
    *("macro_f2", "fnr", "missed_disease_rate", "macro_auroc", "disease_auroc", "brier"),
    *("macro_f1", "macro_precision", "accuracy"),
)
_SLICES = "Slices, not volumes: every image is judged alone, and 8-bit grey is all that is seen."
_ONE_SOURCE = (
    "The test images are of the same source as the training images: nothing is known of other "
    "sites, and the images name no site that figures could be given by."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tested:
    """A classifier on the test images.

    Attributes:
        name: of the classifier in `resampled`.
        probabilities: float32 [N, K].
        openings: how often the test images have been predicted by now.
    """

    images: ImageSet
    name: str
    resampled: Resampled
    found: Comparison
    probabilities: np.ndarray
    healthy_class: str | None
    openings: int


def build_card(
    classifier: Classifier,
    tested: Tested,
    *,
    model: str,
    version: str,
    written: CardConfig,
    data: Manifest,
    synthetic: Mapping[str, tuple[Manifest, Audit | None]],
) -> ModelCard:
    """Fill the card, which is handed on: it names no directory, bucket, host or patient.

    Args:
        model, version: in the registry.
        written: what a person says of it.
        data: manifest of the real images.
        synthetic: manifest and audit of each synthetic set that it was trained on.
    """
    description = Description(manifest=data)
    card = ModelCard(
        gemix=gemix.__version__,
        model=model,
        version=version,
        checksum=classifier.checksum,
        method=classifier.method,
        seed=classifier.config.seed,
        architecture=_architecture(classifier.spec),
        training=_training(classifier),
        training_digest=classifier.training_digest,
        validation={k: v for k, v in classifier.validation.items() if is_number(v)},
        written=written,
        data=_data(description),
        test=TestRow(
            digest=tested.images.digest,
            images=len(tested.images),
            groups=len(set(tested.images.groups)),
            healthy_class=tested.healthy_class,
            openings=tested.openings,
        ),
        rates=_rates(tested.found),
        classes=_classes(tested),
        confusion=tuple(map(tuple, tested.found.confusion.tolist())),
        ece=expected_calibration_error(tested.images.labels, tested.probabilities),
        decision=DecisionRow.of(classifier),
        synthetic=tuple(
            SyntheticRow(
                name=name,
                digest=manifest.digest,
                images=manifest.images(),
                generator=manifest.origin.get("generator"),
                synthesis=without_paths(manifest.origin).get("synthesis") or {},
                verdict=audit and audit.verdict,
                reasons=audit.reasons if audit else (),
            )
            for name, (manifest, audit) in synthetic.items()
        ),
        limits=(),
        software=versions(),
    )
    card = dataclasses.replace(card, limits=_limits(card, description), lacks=_lacks(card))
    return dataclasses.replace(card, claim=claim_items(card))


def _architecture(spec: ModelSpec) -> str:
    side = spec.resolution
    return f"{spec.model} of timm for images of {spec.channels} × {side} × {side} pixels"


def _training(classifier: Classifier) -> dict[str, Any]:
    """Return the settings; of a file of pretrained weights the name and the SHA-256."""
    settings = without_folder(classifier.config)
    if classifier.weights_sha256 is not None:
        settings["weights_sha256"] = classifier.weights_sha256
    return settings


def _rates(found: Comparison) -> dict[str, Rate]:
    return {
        name: _rate(found.rates[name], found.intervals[name])
        for name in RATES
        if name in found.rates
    }


def _classes(tested: Tested) -> tuple[ClassRow, ...]:
    images = np.bincount(tested.images.labels, minlength=len(tested.images.classes))
    groups = groups_by_class(tested.images.labels, tested.images.groups, tested.images.classes)
    intervals, found = tested.resampled.by_class(tested.name), tested.found.by_class
    return tuple(
        ClassRow(
            name=name,
            images=int(images[index]),
            groups=groups[name],
            **{
                rate: _rate(getattr(found, rate)[index], intervals[index][rate])
                if index in intervals
                else None
                for rate in ("recall", "precision")
            },
        )
        for index, name in enumerate(tested.images.classes)
    )


def _rate(value: float, interval: tuple[float, float]) -> Rate:
    return Rate(value=float(value), low=float(interval[0]), high=float(interval[1]))


def _data(about: Description) -> DataRow:
    counts = about.counts
    return DataRow(
        source=about.source,
        digest=about.manifest.digest,
        images={of.name: of.images for of in counts},
        groups={of.name: of.groups for of in counts if of.groups is not None} or None,
        group_word=about.group_word,
        grouping=about.grouping,
        selection=dict(about.selection_counts),
        settings=dict(about.settings),
        unknown=tuple(about.limits),
    )


def _limits(card: ModelCard, about: Description) -> tuple[str, ...]:
    few = warn_of_few_groups({row.name: row.groups for row in card.classes})
    sentences = (about.warning, few and f"{few[0].upper()}{few[1:]}.", _ONE_SOURCE, _SLICES)
    return tuple(filter(None, (*sentences, ONE_TRAINING)))


def _lacks(card: ModelCard) -> tuple[str, ...]:
    """Return what is missing: texts that a person writes, then figures that a test gives."""
    rates: Sequence[str] = ("macro_f2", "fnr", "brier")
    if card.test.healthy_class is not None:
        rates = (*rates, "missed_disease_rate")
    return (
        *(f"promotion.card.{name}" for name in card.written.empty),
        *(f"the figure {name}" for name in rates if name not in card.rates),
        *(f"test images of the class {row.name}" for row in card.classes if row.recall is None),
    )
