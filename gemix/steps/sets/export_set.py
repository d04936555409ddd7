"""Export a synthetic set for others: images, labels, card and audit, and nothing of a person."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TypeVar

from gemix.config import PipelineConfig
from gemix.core.errors import DataError
from gemix.data.leakage.provenance import PROVENANCE_SHA256, write_withheld_provenance
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.evaluation.privacy.decision import why_not_passed
from gemix.io.audit_record import AUDIT, Audit, read_audit
from gemix.io.records import write_record
from gemix.io.results import LABEL_FIGURE
from gemix.io.storage import Store, open_output
from gemix.io.workspace import Workspace
from gemix.steps.sets.find_sets import find_set
from gemix.synthesis.curation.record import Curation
from gemix.synthesis.fidelity import FIDELITY
from gemix.synthesis.set_card.markdown import card_text
from gemix.synthesis.set_card.paths import without_paths
from gemix.synthesis.set_card.record import CARD, CARD_TEXT, AuditVerdict, read_card
from gemix.synthesis.set_card.statements import limits

T = TypeVar("T", Audit, Curation)

COPIED = (FIDELITY, LABEL_FIGURE)  # neither names a person, a path or a host


def export_set(
    config: PipelineConfig, workspace: Workspace, target: str, out_url: str, *, overwrite: bool
) -> Manifest:
    """Copy a set whose privacy audit has passed to a directory that may be handed on.

    The record of whom its generator learned from (``seen.parquet``: patient keys, checksums,
    thumbnails) stays. In its place is one that says so, so that whoever trains on the set is told
    that a test set may share patients with it. Settings that name directories are left out, too,
    and the card says what is true of the copy.

    Args:
        target: a method of the work directory, or the directory of a set.
        out_url: a path or an s3:// URL.

    Returns:
        The manifest of the copy; its digest is that of the set.

    Raises:
        AlreadyFinishedError: if there is a set and `overwrite` is not set.
        DataError: for a set that is not finished, not synthetic, damaged, or has no passed audit,
            or a copy onto the set itself.
    """
    store = Store(find_set(workspace, target))
    manifest = Manifest.load(store)
    if manifest.kind != "synthetic":
        raise DataError(f"{store.url}: real images; only synthetic sets are exported")
    if reason := why_not_passed(store, manifest.digest, config.audit):
        raise DataError(
            f"{store.url}: not exported, since {reason}; run gemix audit {target}, and hand on no "
            "set that has not passed"
        )
    _check_apart(store.url, Store(out_url).url)
    out = open_output(out_url, MANIFEST, overwrite)
    for shard in manifest.shards:
        data = store.read_bytes(shard.name)
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            raise DataError(
                f"{store.url}/{shard.name}: its SHA-256 is not the one in {MANIFEST}; run gemix "
                f"synthesize --overwrite, then gemix audit {target}"
            )
        out.write_bytes(shard.name, data)
    for name in COPIED:
        if store.exists(name):
            out.write_bytes(name, store.read_bytes(name))
    _copy_audit_and_card(store, out, manifest.digest)
    method = manifest.origin.get("method", target.rstrip("/").rsplit("/", 1)[-1])
    record = write_withheld_provenance(out, f"the generator of the {method} images")
    origin = without_paths(manifest.origin) | {PROVENANCE_SHA256: record}
    exported = dataclasses.replace(manifest, origin=origin)
    exported.save(out)
    return exported


def _check_apart(source: str, target: str) -> None:
    """Check that neither directory holds the other, since the target is emptied.

    Raises:
        DataError: otherwise.
    """
    first, second = (f"{url.rstrip('/')}/" for url in (source, target))
    if first.startswith(second) or second.startswith(first):
        raise DataError(f"{target}: in the place of the set itself, {source}; name another one")


def _copy_audit_and_card(store: Store, out: Store, digest: str) -> None:
    """Write the audit, and a card of this version if there is one, as they are true of the copy."""
    audit = read_audit(store, digest)
    if audit is not None:
        write_record(out, AUDIT, _without_folders(audit))
    card = read_card(store, digest)
    if card is None:
        return
    settings = without_paths({"labels": card.labels, "synthesis": card.synthesis})
    card = dataclasses.replace(
        card,
        labels=settings["labels"],
        synthesis=settings["synthesis"],
        training_data=dataclasses.replace(card.training_data, is_withheld=True),
        comparisons=tuple(
            dataclasses.replace(one, extractor=_without_folder(one.extractor))
            for one in card.comparisons
        ),
        audit=audit and AuditVerdict.of(audit),
        curation=card.curation and _without_folders(card.curation),
    )
    card = dataclasses.replace(card, limits=limits(card))
    out.write_bytes(CARD_TEXT, card_text(card).encode())
    write_record(out, CARD, card)


def _without_folders(record: T) -> T:
    """Return an audit or a curation whose settings name no folder."""
    settings = dict(record.settings)
    if "extractor" in settings:
        settings["extractor"] = _without_folder(settings["extractor"])
    return dataclasses.replace(record, settings=settings)


def _without_folder(extractor: str) -> str:
    """Return ``torchscript:inception.pt`` of an extractor in some folder."""
    kind, colon, what = extractor.partition(":")
    return f"{kind}{colon}{what.rsplit('/', 1)[-1]}"
