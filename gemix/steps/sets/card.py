"""Write the card of a synthetic set: what it is made of, what it shows, what it is for."""

from __future__ import annotations

import dataclasses
import logging

import gemix
from gemix.classifier.bundle import MODEL
from gemix.config import PipelineConfig
from gemix.core.errors import AlreadyFinishedError, DataError
from gemix.data.dataset_card.description import Description
from gemix.data.leakage.provenance import Provenance
from gemix.data.shards.manifest import Manifest
from gemix.io.audit_record import read_audit
from gemix.io.records import write_record
from gemix.io.results import (
    CLASSIFIERS,
    EVALUATION,
    ONLY,
    REAL,
    read_classifiers,
    read_evaluation,
)
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.sets.find_sets import find_set
from gemix.steps.sets.image_comparisons import compare_images
from gemix.synthesis.curation.record import read_curation
from gemix.synthesis.fidelity import read_fidelity
from gemix.synthesis.set_card.markdown import card_text
from gemix.synthesis.set_card.record import (
    CARD,
    CARD_TEXT,
    SYNTHETIC,
    AuditVerdict,
    SetCard,
    SetClass,
    TeacherSummary,
    TrainingData,
    Transfer,
    TransferRate,
)
from gemix.synthesis.set_card.statements import INTENDED_USE, limits
from gemix.tracking import mlflow_run as tracking

log = logging.getLogger("gemix.card")

RATES = ("macro_f2", "fnr", "accuracy")


def write_card(
    config: PipelineConfig, workspace: Workspace, target: str, *, overwrite: bool = False
) -> SetCard:
    """Write ``card.json`` and ``card.md`` into the directory of a synthetic set.

    Args:
        target: a method of label sampling, or the directory of any synthetic set.
        overwrite: replace the card that is there.

    Raises:
        AlreadyFinishedError: if there is a card and `overwrite` is not set.
        DataError: if the set, the real images or their records are missing or damaged, or do not
            fit together.
        ConfigError: for an extractor that cannot be opened.
    """
    store, real = Store(find_set(workspace, target)), Store(workspace.data)
    manifest, real_manifest = Manifest.load(store), Manifest.load(real)
    _check(store, manifest, real, real_manifest)
    if store.exists(CARD) and not overwrite:
        raise AlreadyFinishedError(f"{store.url}: has a card; pass --overwrite to replace it")
    origin, audit = manifest.origin, read_audit(store, manifest.digest)
    with tracking.start_run(config, workspace.workdir, "card") as run:
        run.log_dataset(manifest.digest, SYNTHETIC, "described")
        card = SetCard(
            version=gemix.__version__,
            digest=manifest.digest,
            method=origin.get("method", "of an unknown method"),
            images=manifest.images(),
            resolution=manifest.resolution,
            channels=manifest.channels,
            classes=_classes(manifest),
            generator=origin.get("generator"),
            generator_kimg=origin.get("generator_kimg"),
            precision=origin.get("precision"),
            training_data=_training_data(store, real_manifest),
            labels=origin.get("labels") or {},
            synthesis=origin.get("synthesis") or {},
            fidelity=_fidelity(store, manifest),
            comparisons=compare_images(config.metrics, store, real, Store(workspace.metrics)),
            transfer=_transfer(workspace, store, manifest),
            audit=audit and AuditVerdict.of(audit),
            intended_use=INTENDED_USE,
            limits=(),
            curation=read_curation(store),
        )
        card = dataclasses.replace(card, limits=limits(card))
        text = card_text(card)
        _log_to(run, card, text)
        store.write_bytes(CARD_TEXT, text.encode())
        write_record(store, CARD, card)
    log.info("%s/%s", store.url, CARD_TEXT)
    return card


def _check(store: Store, manifest: Manifest, real: Store, real_manifest: Manifest) -> None:
    if manifest.kind != SYNTHETIC:
        raise DataError(
            f"{store.url}: a set of real images, whose card gemix prepare writes; name one of "
            "synthetic images"
        )
    ours, theirs = ((list(m.classes), list(m.image_shape)) for m in (manifest, real_manifest))
    if ours != theirs:
        raise DataError(
            f"{store.url}: classes {ours[0]} in images of {ours[1]}, but the real images in "
            f"{real.url} have {theirs[0]} in {theirs[1]}; name the work directory of the same "
            "classes and preparation with --workdir"
        )


def _classes(manifest: Manifest) -> tuple[SetClass, ...]:
    drawn = manifest.origin.get("drawn") or {}
    return tuple(
        SetClass(name=name, images=manifest.counts["train"][name], drawn=drawn.get(name))
        for name in manifest.classes
    )


def _training_data(store: Store, real: Manifest) -> TrainingData:
    """Summarize the record of what generator and teacher learned from."""
    record = Provenance(store, "the generator")
    digests: dict[str, None] = {}
    groups: set[str] = set()
    images = 0
    for table in record:
        images += len(table)
        digests |= dict.fromkeys(table["dataset"].unique().to_pylist())
        groups.update(table["group"].unique().to_pylist())
    is_at_hand = list(digests) == [real.content_digest("train")] and not record.unknown
    return TrainingData(
        digests=tuple(digests),
        images=images,
        groups=len(groups),
        unknown=len(record.unknown),
        source=Description(manifest=real).source if is_at_hand else None,
        is_drawn=real.origin.get("source") == "phantom" if is_at_hand else None,
    )


def _fidelity(store: Store, manifest: Manifest) -> tuple[TeacherSummary, ...]:
    found = read_fidelity(store)
    if found is None or found.digest != manifest.digest:
        return ()
    return tuple(
        TeacherSummary(
            name=view.name,
            agreement=view.synthetic.agreement,
            expected_agreement=view.synthetic.expected_agreement,
            calibration_error=view.synthetic.calibration_error,
            ceiling=view.real.agreement,
            by_class=dict(zip(manifest.classes, view.synthetic.agreement_by_class, strict=True)),
        )
        for view in found.teachers
    )


def _transfer(workspace: Workspace, store: Store, manifest: Manifest) -> Transfer | None:
    """Return rates of classifiers of this very set alone, from the work directory's evaluation."""
    classifiers, evaluation = Store(workspace.classifiers), Store(workspace.evaluation)
    if not evaluation.exists(EVALUATION) or not classifiers.exists(CLASSIFIERS):
        return None
    method = f"{manifest.origin.get('method')}{ONLY}"
    names = [row.name for row in read_classifiers(classifiers) if row.method == method]
    found = read_evaluation(evaluation)
    rows = {row.method: row for row in found.results}
    if not names or not {REAL, method} <= rows.keys():
        return None
    classes = Manifest.load(Store(workspace.data)).classes
    learned = {classifiers.read_json(f"{name}/{MODEL}").get("training_digest") for name in names}
    if learned != {manifest.content_digest("train", classes)}:
        log.warning(
            "the %s classifiers learned from another version of the images than %s: their rates "
            "are left out",
            method,
            store.url,
        )
        return None
    ours, reference = rows[method], rows[REAL]
    return Transfer(
        test_digest=found.test.digest,
        images=found.test.images,
        seeds=ours.seeds,
        rates=tuple(
            TransferRate(
                rate=name,
                real=reference.rates.get(name),
                synthetic=ours.rates.get(name),
                difference=ours.difference_to_real.get(name),
            )
            for name in RATES
        ),
    )


def _log_to(run: tracking.Run, card: SetCard, text: str) -> None:
    run.log_text(text, f"{card.method}.md")
    run.log_metrics(
        {
            f"{card.method}/{one.of}_against_{one.against}/{name}": value
            for one in card.comparisons
            for name, value in one.metrics.items()
        }
    )
