"""Raw scans to checked, cropped, resized, split Parquet shards, spread by Ray Data."""

from __future__ import annotations

import sys

from gemix.config import PipelineConfig
from gemix.core.errors import AlreadyFinishedError
from gemix.data import prepare as steps
from gemix.data.dataset_card.contact_sheet import CONTACT_SHEET
from gemix.data.dataset_card.markdown import CARD
from gemix.data.prepare.resume_cache import forget
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.sources import open_source
from gemix.io.storage import Store, open_output
from gemix.io.workspace import Layout
from gemix.steps.outputs import open_step
from gemix.tracking import mlflow_run as tracking
from jobs._runtime.command import Command
from jobs._runtime.ray_map import RayMap


def prepare(config: PipelineConfig, layout: Layout, *, overwrite: bool = False) -> Manifest:
    """Writes the real images of ``config.data`` to ``layout.data``.

    Returns:
        The manifest of what was written; the same scans and settings give the same digest.

    Raises:
        AlreadyFinishedError: if the data are there already and `overwrite` is not set.
        DataError: for scans that are missing, contradictory or too often bad.
    """
    steps.check_places(config.data, Store(layout.data))
    if not overwrite:
        _refuse_if_finished(layout.data)
    # listed before an older result is removed: a wrong path must not cost it
    source = open_source(config.data)
    spread = RayMap("prepare")
    listing = steps.find(source, config.data, spread)
    with tracking.start_run(config, layout.workdir, "prepare") as run:
        for note in listing.notes:
            print(f"prepare: {note}", flush=True)
        store = open_step(layout.data, MANIFEST, config, overwrite)
        manifest = steps.prepare(source, listing, config.data, store, spread)
        _log(run, manifest, store)
    _say(manifest, store, known=len(listing.notes))
    return manifest


def _refuse_if_finished(url: str) -> None:
    """Also clears away what a run that was killed at its very end has left."""
    try:
        open_output(url, MANIFEST, overwrite=False)
    except AlreadyFinishedError:
        forget(Store(url))
        raise


def _log(run: tracking.Run, manifest: Manifest, store: Store) -> None:
    run.log_dataset(manifest.digest, "real", "prepare")
    run.log_metrics(
        {f"images_{split}": sum(counts.values()) for split, counts in manifest.counts.items()}
        | {"quarantined": manifest.origin["quarantined"]}
    )
    for name in (MANIFEST, steps.QUARANTINE, CARD, CONTACT_SHEET):
        run.log_bytes(store.read_bytes(name), name)


def _say(manifest: Manifest, store: Store, known: int) -> None:
    for note in manifest.origin["notes"][known:]:
        print(f"prepare: {note}")
    for split, counts in manifest.counts.items():
        parts = ", ".join(f"{name} {count}" for name, count in counts.items())
        print(f"prepare: {split}: {parts}")
    bad = manifest.origin["quarantined"]
    if bad:
        print(f"prepare: {bad} bad files set aside, see {store.url}/{steps.QUARANTINE}")
    print(f"prepare: wrote {store.url}; read {CARD} there, look at {CONTACT_SHEET}", flush=True)


COMMAND = Command(
    name="prepare",
    summary="Raw scans to checked, cropped, resized and split Parquet shards.",
    reads="data.path: class folders, COVIDx CT, DICOM, NIfTI, MedMNIST, Parquet; or the phantom",
    writes="<workdir>/data: shards, manifest.json, quarantine.json, CARD.md, contact_sheet.png",
    costs="about 200 scans of 512 x 512 pixels a second and CPU core; no GPU",
    run=lambda request: prepare(request.config, request.layout, overwrite=request.overwrite),
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
