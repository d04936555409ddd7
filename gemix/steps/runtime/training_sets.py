"""The synthetic sets that classifiers are trained on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from gemix.config import PipelineConfig
from gemix.core.errors import DataError
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.evaluation.privacy.decision import why_not_passed
from gemix.io.storage import Store
from gemix.io.workspace import Workspace


def synthetic_sets(
    config: PipelineConfig,
    workspace: Workspace,
    names: Sequence[str] | None,
    log: logging.Logger,
) -> dict[str, str]:
    """Return the directories of synthetic sets by name.

    Args:
        names: of sets in the work directory; None for those of ``synthesis.methods`` that are
            finished.

    Raises:
        DataError: for a named set that is not finished.
    """
    sets = {}
    for name in names or config.synthesis.methods:
        url = workspace.synthetic(name)
        if Store(url).exists(MANIFEST):
            sets[name] = url
        elif names:
            raise DataError(f"{url}: no finished synthetic set; run gemix synthesize first")
        else:
            log.info("no %s images in %s, left out", name, url)
    return sets


def without_passed_audit(
    config: PipelineConfig, workspace: Workspace, sets: Mapping[str, str], log: logging.Logger
) -> dict[str, str]:
    """Warn of each synthetic set without a passed audit; return why it has none, by name."""
    found = {}
    for name, url in sets.items():
        store = Store(url)
        if why := why_not_passed(store, Manifest.load(store).digest, config.audit):
            found[name] = why
            log.warning(
                "the %s images have no passed privacy audit: %s; run gemix audit %s",
                *(name, why, name if url == workspace.synthetic(name) else url),
            )
    return found
