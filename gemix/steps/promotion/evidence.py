"""Gather what the gate looks at: both classifiers on the test images, sets, audits, the card."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from gemix.classifier.bundle import Classifier
from gemix.config import PipelineConfig
from gemix.core.errors import DataError
from gemix.data.image_set import ImageSet
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.shards.reading import read_images
from gemix.evaluation.classification.bootstrap import Comparison, Resampled
from gemix.evaluation.classification.normal_class import normal_class
from gemix.evaluation.privacy.decision import why_not_passed
from gemix.io.audit_record import AUDIT, read_audit
from gemix.io.records import to_json
from gemix.io.results import Difference
from gemix.io.storage import Store
from gemix.promotion.gate import FNR, MACRO_F2, MISSED, ONE_TRAINING, Evidence
from gemix.promotion.learned_from import synthetic_set_of, why_other_images
from gemix.promotion.ledger import Figure, JudgedVersion, TestImages
from gemix.promotion.model_card.build import Tested, build_card
from gemix.promotion.model_card.markdown import card_text, description
from gemix.promotion.model_card.record import CARD, CARD_TEXT, DecisionRow
from gemix.steps.promotion.origin import Origin
from gemix.steps.runtime.test_openings import count_opening
from gemix.tracking.champion import RegisteredModel, Version
from gemix.tracking.model_registry import DATA_DIGEST
from gemix.tracking.registrable import NotRegistrableError, check_registrable

FIGURES = (MACRO_F2, FNR, MISSED, "accuracy")  # of the ledger, the most important first
_CANDIDATE, _REFERENCE = "candidate", "reference"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contender:
    """A classifier of the comparison, and what the ledger says of it."""

    classifier: Classifier
    judged: JudgedVersion

    def is_same(self, other: Contender) -> bool:
        """Return whether weights and decisions are the same."""
        ours, theirs = self.classifier, other.classifier
        return (ours.checksum, ours.decision) == (theirs.checksum, theirs.decision)

    @classmethod
    def registered(cls, model: RegisteredModel, version: Version) -> Self:
        """Read a registered version."""
        classifier = model.load(version)
        judged = JudgedVersion(
            version=version.number,
            name=classifier.name,
            checksum=classifier.checksum,
            decision=str(DecisionRow.of(classifier)),
            data_digest=version.tags.get(DATA_DIGEST),
        )
        return cls(classifier=classifier, judged=judged)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gathered:
    """Everything that a decision records.

    Attributes:
        card: ``model_card.md`` and ``model_card.json``.
        summary: the card's beginning, for MLflow.
        sha256: of the files that the decision rests on, by name.
    """

    evidence: Evidence
    figures: tuple[Figure, ...]
    test: TestImages
    card: Mapping[str, bytes]
    summary: str
    sha256: Mapping[str, str]
    remarks: tuple[str, ...]


def best_real_only(origin: Origin) -> Contender:
    """Return the best classifier of real images alone, by validation.

    Raises:
        DataError: if there is none.
    """
    name, classifier = origin.real_only()
    judged = JudgedVersion(
        version=None,
        name=name,
        checksum=classifier.checksum,
        decision=str(DecisionRow.of(classifier)),
        data_digest=Manifest.load(Store(origin.workspace.data)).digest,
    )
    return Contender(classifier=classifier, judged=judged)


def gather(
    config: PipelineConfig, origin: Origin, candidate: Contender, reference: Contender
) -> Gathered:
    """Predict the test images with both classifiers, and look at sets, audits and the card.

    The test images are counted as opened.

    Args:
        reference: the champion, which must not be the same classifier; or, where there is none, the
            best classifier of real images alone, which may be.

    Raises:
        DataError: if the classifiers have other classes, or take other images.
    """
    workspace = origin.workspace
    test, data = read_images([workspace.data], "test"), Manifest.load(Store(workspace.data))
    for one in (candidate, reference):
        _check_fits(one, test, config.tracking.registered_model)
    normal = normal_class(test.classes, config.data.normal_class)
    openings = count_opening(workspace, "promote", test.digest)
    is_reference = candidate.is_same(reference)
    contenders = (
        {_CANDIDATE: candidate}
        if is_reference
        else {
            _REFERENCE: reference,
            _CANDIDATE: candidate,
        }
    )
    probabilities = {
        name: one.classifier.predict(test.images)[None] for name, one in contenders.items()
    }
    predicted = {
        name: one.classifier.decision.decide(probabilities[name][0])
        for name, one in contenders.items()
    }
    resampled = Resampled(
        test.labels,
        {name: classes[None] for name, classes in predicted.items()},
        test.groups,
        classes=len(test.classes),
        normal=normal,
        probabilities=probabilities,
    )
    compared = resampled.against(_REFERENCE)
    synthetic = synthetic_set_of(candidate.classifier.method)
    sets = _sets(origin, synthetic)
    card = build_card(
        candidate.classifier,
        Tested(
            images=test,
            name=_CANDIDATE,
            resampled=resampled,
            found=compared[_CANDIDATE],
            probabilities=probabilities[_CANDIDATE][0],
            healthy_class=None if normal is None else test.classes[normal],
            openings=openings,
        ),
        model=config.tracking.registered_model,
        version=str(candidate.judged.version),
        written=config.promotion.card,
        data=data,
        synthetic={
            name: (manifest, read_audit(store, manifest.digest))
            for name, (store, manifest) in sets.items()
        },
    )
    text = f"{json.dumps(to_json(card), indent=1, allow_nan=False)}\n"
    files = {CARD_TEXT: card_text(card).encode(), CARD: text.encode()}
    shared, unknown = _overlap(origin)
    evidence = Evidence(
        found=compared[_CANDIDATE],
        reference=_in_words(reference),
        is_reference=is_reference,
        differing=_differing(test.groups, *predicted.values()),
        classes=len(test.classes),
        has_healthy=normal is not None,
        unfit=_why_unfit(candidate.classifier),
        other_images=why_other_images(
            candidate.classifier, data, {name: manifest for name, (_, manifest) in sets.items()}
        ),
        synthetic=synthetic,
        no_audit=_why_no_audit(config, synthetic, sets),
        audit_target=synthetic and origin.audit_target(synthetic),
        shared=shared,
        card_lacks=card.lacks,
    )
    return Gathered(
        evidence=evidence,
        figures=_figures(compared[_CANDIDATE], compared.get(_REFERENCE, compared[_CANDIDATE])),
        test=TestImages(
            digest=test.digest, images=len(test), groups=len(set(test.groups)), openings=openings
        ),
        card=files,
        summary=description(card),
        sha256=_hashes(origin, sets, files),
        remarks=(
            *(() if is_reference else (ONE_TRAINING,)),
            *_other_data(reference, data.digest),
            *unknown,
        ),
    )


def _differing(groups: Sequence[str], *predicted: np.ndarray) -> int:
    """Count the patients of whom an image is not given one class by all classifiers, [N] each."""
    differs = np.ptp(predicted, axis=0) > 0
    return len(set(np.asarray(groups)[differs]))


def _sets(origin: Origin, name: str | None) -> dict[str, tuple[Store, Manifest]]:
    """Return the synthetic set of this name, where it is in the work directory."""
    if name is None or not Store(origin.synthetic_set(name)).exists(MANIFEST):
        return {}
    store = Store(origin.synthetic_set(name))
    return {name: (store, Manifest.load(store))}


def _why_no_audit(
    config: PipelineConfig, name: str | None, sets: Mapping[str, tuple[Store, Manifest]]
) -> str | None:
    if name is None:
        return None
    if name not in sets:
        return "the set is not in the work directory"
    store, manifest = sets[name]
    return why_not_passed(store, manifest.digest, config.audit)


def _why_unfit(classifier: Classifier) -> str | None:
    try:
        check_registrable(classifier)
    except NotRegistrableError as error:
        return str(error)
    return None


def _overlap(origin: Origin) -> tuple[list[str], list[str]]:
    """Return what training and test images share, and what nobody can know of it."""
    found = origin.overlap
    if found is None:
        return [], [f"{origin.record} does not record whether training and test images overlap."]
    shared = [
        f"{one.learned} and {one.held_out} share {one.groups} patients or groups, {one.images} "
        f"equal images and {one.copies} copies"
        for one in found.shared
    ]
    return shared, [
        f"There is no record of {name}: test images may be among them." for name in found.unknown
    ]


def _other_data(reference: Contender, data_digest: str) -> list[str]:
    if reference.judged.data_digest == data_digest:
        return []
    which = "data that are not on record" if reference.judged.data_digest is None else "other data"
    return [
        f"{_in_words(reference)[0].upper()}{_in_words(reference)[1:]}, was trained on {which}: it "
        "may have seen these test patients, which favours it."
    ]


def _in_words(reference: Contender) -> str:
    if reference.judged.version is None:
        return f"the best classifier of real images alone, {reference.judged.name}"
    return f"the champion, version {reference.judged.version}"


def _figures(candidate: Comparison, reference: Comparison) -> tuple[Figure, ...]:
    found = []
    for rate in FIGURES:
        if rate not in candidate.rates:
            continue
        difference = candidate.differences.get(rate)
        found.append(
            Figure(
                rate=rate,
                candidate=candidate.rates[rate],
                candidate_interval=candidate.intervals[rate],
                reference=reference.rates[rate],
                reference_interval=reference.intervals[rate],
                difference=difference
                and Difference(
                    delta=difference.delta, low=difference.low, high=difference.high, p=difference.p
                ),
            )
        )
    return tuple(found)


def _hashes(
    origin: Origin, sets: Mapping[str, tuple[Store, Manifest]], card: Mapping[str, bytes]
) -> dict[str, str]:
    workdir = origin.workspace.workdir
    files = {origin.record: Store(workdir).read_bytes(origin.record)}
    for store, _ in sets.values():
        if store.exists(AUDIT):
            files[f"{store.url.removeprefix(f'{workdir}/')}/{AUDIT}"] = store.read_bytes(AUDIT)
    return {name: hashlib.sha256(data).hexdigest() for name, data in (files | dict(card)).items()}


def _check_fits(one: Contender, test: ImageSet, model: str) -> None:
    spec, name = one.classifier.spec, one.judged.name
    if one.judged.version is not None:
        name = f"{model} version {one.judged.version} ({name})"
    if one.classifier.classes != test.classes:
        raise DataError(
            f"{name} knows the classes {list(one.classifier.classes)}, and the test images have "
            f"{list(test.classes)}: they cannot be compared; register classifiers of other classes "
            "under another name (tracking.registered_model)"
        )
    if (spec.channels, spec.resolution) != test.images.shape[1:3]:
        raise DataError(
            f"{name} takes images of {spec.channels} x {spec.resolution} x {spec.resolution}, and "
            f"the test images have {' x '.join(map(str, test.images.shape[1:]))}; prepare the data "
            "as for it, or register classifiers of other images under another name "
            "(tracking.registered_model)"
        )
