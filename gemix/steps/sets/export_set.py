"""Export a synthetic set for others: images, labels, card and audit, and nothing of a person."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

from gemix.config import PipelineConfig
from gemix.core.errors import DataError
from gemix.data.leakage.provenance import PROVENANCE_SHA256, write_withheld_provenance
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.evaluation.privacy.decision import why_not_passed
from gemix.io.audit_record import AUDIT
from gemix.io.results import LABEL_FIGURE
from gemix.io.storage import Store, open_output
from gemix.io.workspace import Workspace
from gemix.steps.sets.find_sets import find_set
from gemix.synthesis.fidelity import FIDELITY
from gemix.synthesis.set_card.record import CARD, CARD_TEXT

# none of these names a person, a path or a host; config.yaml and curation.json may
BESIDE = (AUDIT, CARD, CARD_TEXT, FIDELITY, LABEL_FIGURE)
_PATHS = (("synthesis", "generator"), ("synthesis", "teacher"), ("labels", "recall_of"))


def export_set(
    config: PipelineConfig, workspace: Workspace, target: str, out_url: str, *, overwrite: bool
) -> Manifest:
    """Copy a set whose privacy audit has passed to a directory that may be handed on.

    The record of whom its generator learned from (``seen.parquet``: patient keys, checksums,
    thumbnails) stays. In its place is one that says so, so that whoever trains on the set is told
    that a test set may share patients with it. Settings that name directories are left out, too.

    Args:
        target: a method of the work directory, or the directory of a set.
        out_url: a path or an s3:// URL.

    Returns:
        The manifest of the copy; its digest is that of the set.

    Raises:
        AlreadyFinishedError: if there is a set and `overwrite` is not set.
        DataError: for a set that is not finished, not synthetic, damaged, or has no passed audit.
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
    out = open_output(out_url, MANIFEST, overwrite)
    for shard in manifest.shards:
        data = store.read_bytes(shard.name)
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            raise DataError(
                f"{store.url}/{shard.name}: its SHA-256 is not the one in {MANIFEST}; run gemix "
                f"synthesize --overwrite, then gemix audit {target}"
            )
        out.write_bytes(shard.name, data)
    for name in BESIDE:
        if store.exists(name):
            out.write_bytes(name, store.read_bytes(name))
    method = manifest.origin.get("method", target.rstrip("/").rsplit("/", 1)[-1])
    record = write_withheld_provenance(out, f"the generator of the {method} images")
    origin = _without_paths(manifest.origin) | {PROVENANCE_SHA256: record}
    exported = dataclasses.replace(manifest, origin=origin)
    exported.save(out)
    return exported


def _without_paths(origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return the origin of a set without the settings that name directories."""
    found = dict(origin)
    for section, name in _PATHS:
        if isinstance(found.get(section), Mapping) and name in found[section]:
            found[section] = {key: value for key, value in found[section].items() if key != name}
    return found
