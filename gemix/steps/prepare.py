"""Prepare raw scans: checked, cropped, resized, split, in Parquet shards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gemix.config import PipelineConfig
from gemix.core.errors import AlreadyFinishedError
from gemix.data import prepare as steps
from gemix.data.dataset_card.contact_sheet import CONTACT_SHEET
from gemix.data.dataset_card.markdown import CARD
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.sources import open_source
from gemix.evaluation.classification.normal_class import normal_class
from gemix.io import resume_cache
from gemix.io.storage import Store, open_output
from gemix.io.workspace import Workspace
from gemix.labels import check_class_weights
from gemix.steps.runtime.executor import Executor, LocalExecutor
from gemix.steps.runtime.outputs import open_step
from gemix.tracking import mlflow_run as tracking

log = logging.getLogger("gemix.prepare")


def prepare(
    config: PipelineConfig,
    workspace: Workspace,
    *,
    executor: Executor | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Write the real images of ``config.data`` to ``workspace.data``.

    Returns:
        The manifest of what was written; the same scans and settings give the same digest.

    Raises:
        AlreadyFinishedError: if the data are there already and `overwrite` is not set.
        DataError: for scans that are missing, contradictory or too often bad, a
            ``data.normal_class`` that is none of their classes, or ``labels.class_weights`` that
            are not one a class.
    """
    steps.check_locations(config.data, Store(workspace.data))
    if not overwrite:
        _refuse_if_finished(workspace.data)
    # listed before an older result is removed: a wrong path must not cost it
    source = open_source(config.data)
    executor = executor or LocalExecutor()

    def map_fn(function: Callable[[Any], Any], inputs: Sequence[Any], unit: str) -> Iterator[Any]:
        return executor.map(function, inputs, title="prepare", unit=unit)

    listing = steps.list_scans(source, config.data, map_fn)
    normal_class(listing.classes, config.data.normal_class)  # refuses a name that is no class
    check_class_weights(config.labels, len(listing.classes))
    with tracking.start_run(config, workspace.workdir, "prepare") as run:
        for note in listing.notes:
            log.info("%s", note)
        store = open_step(workspace.data, MANIFEST, config, overwrite)
        manifest = steps.prepare(source, listing, config.data, store, map_fn)
        _log_to_mlflow(run, manifest, store)
    _log_counts(manifest, store, known=len(listing.notes))
    return manifest


def _refuse_if_finished(url: str) -> None:
    """Raise if the set is finished; clear what a run killed at its very end has left."""
    try:
        open_output(url, MANIFEST, overwrite=False)
    except AlreadyFinishedError:
        resume_cache.clear(Store(url))
        raise


def _log_to_mlflow(run: tracking.Run, manifest: Manifest, store: Store) -> None:
    run.log_dataset(manifest.digest, "real", "prepare")
    run.log_metrics(
        {f"images_{split}": sum(counts.values()) for split, counts in manifest.counts.items()}
        | {"quarantined": manifest.origin["quarantined"]}
    )
    for name in (MANIFEST, steps.QUARANTINE, CARD, CONTACT_SHEET):
        run.log_bytes(store.read_bytes(name), name)


def _log_counts(manifest: Manifest, store: Store, known: int) -> None:
    for note in manifest.origin["notes"][known:]:
        log.info("%s", note)
    for split, counts in manifest.counts.items():
        parts = ", ".join(f"{name} {count}" for name, count in counts.items())
        log.info("%s: %s", split, parts)
    bad = manifest.origin["quarantined"]
    if bad:
        log.info("%d bad files set aside, see %s/%s", bad, store.url, steps.QUARANTINE)
    log.info("wrote %s; read %s there, look at %s", store.url, CARD, CONTACT_SHEET)
