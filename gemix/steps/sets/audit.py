"""Audit a set of synthetic images: does it give away whom its generator learned from?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from gemix.config import PipelineConfig
from gemix.core.device import default_device
from gemix.core.errors import DataError
from gemix.data.shards.manifest import Manifest
from gemix.evaluation.image_quality.features.registry import open_extractor
from gemix.evaluation.privacy.decision import decide
from gemix.evaluation.privacy.measure import WORST, SpaceFindings, measure
from gemix.evaluation.privacy.spaces import FeatureSpace, PixelSpace, Space
from gemix.io.audit_record import (
    AUDIT,
    AUDIT_PAIRS,
    Audit,
    AuditFindings,
    Copies,
    NearPair,
    read_audit,
)
from gemix.io.records import write_record
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.sets.audited_images import AuditInput, collect, resaved_copies
from gemix.steps.sets.discriminator_attack import discriminator_attack
from gemix.steps.sets.find_sets import find_set
from gemix.steps.sets.pairs_sheet import PairImages, pairs_sheet
from gemix.synthesis.curation.record import NEAR_TRAINING
from gemix.tracking import mlflow_run as tracking
from gemix.tracking.mlflow_run import Run

log = logging.getLogger("gemix.audit")


def audit_set(
    config: PipelineConfig,
    workspace: Workspace,
    target: str,
    *,
    real: Sequence[str] = (),
    overwrite: bool = False,
) -> Audit:
    """Audit one set and write ``audit.json`` into its directory.

    The picture of the worst pairs shows real patients, so it stays in the work directory
    (``workspace.audit``), where the set may leave from. A set that was audited with the same
    settings and real images is not audited again.

    Args:
        target: a method of label sampling, or the directory of any shard set.
        real: further sets of real images that the generator may have learned from, beside those
            of the work directory.
        overwrite: audit again all the same.

    Returns:
        The audit, whatever its verdict.

    Raises:
        DataError: if a set is missing or damaged, or of other images than the real ones.
        ConfigError: for an extractor that cannot be opened.
    """
    store = Store(find_set(workspace, target))
    manifest = Manifest.load(store)
    if manifest.kind != "synthetic":
        raise DataError(
            f"{store.url}: a set of real images; name one of synthetic images, as gemix synthesize "
            "writes it"
        )
    stores = [Store(url) for url in (workspace.data, *real)]
    settings = _settings(config, stores)
    earlier = None if overwrite else read_audit(store, manifest.digest)
    if earlier and earlier.settings == settings:
        log.info("%s: audited already; --overwrite audits it again", store.url)
        return earlier
    store.delete(AUDIT)
    with tracking.start_run(config, workspace.workdir, "audit") as run:
        run.log_dataset(manifest.digest, "synthetic", "audit")
        audit, sheet = _audit(config, workspace, store, manifest, stores, settings)
        Store(workspace.audit(manifest.digest)).write_bytes(AUDIT_PAIRS, sheet)
        write_record(store, AUDIT, audit)
        _log_to(run, audit)
    return audit


def _settings(config: PipelineConfig, real: Sequence[Store]) -> dict[str, Any]:
    """Return what decides the findings, beside the set itself."""
    settings: dict[str, Any] = config.audit.to_mapping()
    del settings["in_pipeline"]
    if "features" in config.audit.spaces:
        settings["extractor"] = config.metrics.extractor
    return settings | {"real": [Manifest.load(store).digest for store in real]}


def _audit(
    config: PipelineConfig,
    workspace: Workspace,
    store: Store,
    manifest: Manifest,
    real: Sequence[Store],
    settings: dict[str, Any],
) -> tuple[Audit, bytes]:
    """Return the audit and the picture of its worst pairs."""
    images = collect(store, real, config.audit)
    counts = images.counts
    log.info(
        "%s: %d of %d images beside %d training images (%d patients) and %d held-out ones (%d)",
        store.url,
        *(counts.synthetic, counts.synthetic_total, counts.training, counts.training_patients),
        *(counts.held_out, counts.held_out_patients),
    )
    spaces = {}
    if counts.members and counts.held_out:
        spaces = {
            space.name: measure(
                space,
                images.synthetic_images,
                images.training_sample,
                images.member_sample,
                images.held_out_sample,
                quantile=config.audit.near_quantile,
                seed=config.audit.seed,
            )
            for space in _spaces(config, manifest)
        }
    resaved, alike = resaved_copies(store, images)
    singular = np.zeros(len(resaved), bool)
    for found in spaces.values():
        singular |= found.is_copy
    findings = AuditFindings(
        images=counts,
        learned_from=images.learned_from,
        copies=Copies(
            resaved=int(resaved.sum()), held_out=int(alike.sum()), singular=int(singular.sum())
        ),
        near=tuple(near for space in spaces.values() for near in space.near),
        attacks=tuple(attack for space in spaces.values() for attack in space.attacks),
        removed_near_training=int(manifest.origin.get(NEAR_TRAINING, 0)),
    )
    verdict, reasons = decide(findings, config.audit)
    generator, discriminator = manifest.origin.get("generator"), None
    if spaces:
        gan = Store(workspace.gan)
        discriminator = discriminator_attack(gan, generator, images, seed=config.audit.seed)
    pairs = _worst_pairs(images, spaces, resaved | singular)
    audit = Audit(
        set_digest=manifest.digest,
        generator=generator,
        verdict=verdict,
        reasons=reasons,
        findings=findings,
        settings=settings,
        discriminator=discriminator,
        pairs=tuple(one.pair for one in pairs),
    )
    return audit, pairs_sheet(pairs)


def _spaces(config: PipelineConfig, manifest: Manifest) -> list[Space]:
    device = default_device()
    found: list[Space] = []
    for name in config.audit.spaces:
        if name == "pixels":
            found.append(PixelSpace(device))
        else:
            extractor = open_extractor(config.metrics.extractor, manifest.resolution, device)
            found.append(FeatureSpace(extractor))
    return found


def _worst_pairs(
    images: AuditInput, spaces: dict[str, SpaceFindings], is_copy: np.ndarray
) -> list[PairImages]:
    """Return the pairs of the smallest relative distances, over all spaces."""
    found = [
        (float(space.relative[row]), name, int(row), int(nearest))
        for name, space in spaces.items()
        for row, nearest in zip(space.worst, space.nearest, strict=True)
    ]
    return [
        PairImages(
            pair=NearPair(
                source=str(images.synthetic.sources[row]),
                space=space,
                relative=relative,
                is_copy=bool(is_copy[row]),
            ),
            synthetic=images.synthetic_images[row],
            training=images.training_sample.images[nearest],
            training_source=str(images.training.sources[nearest]),
        )
        for relative, space, row, nearest in sorted(found)[:WORST]
    ]


def _log_to(run: Run, audit: Audit) -> None:
    run.set_tags({"gemix.audit": audit.verdict, "gemix.audit.reasons": "; ".join(audit.reasons)})
    metrics = {f"{a.space}/{a.attack}_auc": a.result.auc for a in audit.findings.attacks}
    metrics |= {
        f"{near.space}/near_{near.expected:.3f}": near.share for near in audit.findings.near
    }
    metrics |= {"copies": audit.findings.copies.resaved + audit.findings.copies.singular}
    if audit.discriminator:
        metrics["discriminator_auc"] = audit.discriminator.auc
    run.log_metrics(metrics)
    run.log_text("\n".join([audit.verdict, *audit.reasons]), "audit.txt")
