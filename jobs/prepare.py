"""Raw scans to checked, cropped, resized, split Parquet shards: Ray Data over shard plans."""

from __future__ import annotations

import logging
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import ray.data

from gemix import tracking
from gemix.config import PipelineConfig
from gemix.data import prepare as steps
from gemix.data.config import DataConfig
from gemix.data.manifest import MANIFEST, Manifest
from gemix.data.sources import Source, open_source
from gemix.storage import Store, open_output
from jobs.cluster import connect
from jobs.command import Command
from jobs.layout import Layout
from jobs.outputs import open_step
from jobs.progress import Progress


def prepare(config: PipelineConfig, layout: Layout, *, overwrite: bool = False) -> Manifest:
    """Writes the real images of ``config.data`` to ``layout.data``.

    Returns:
        The manifest of what was written; the same scans and settings give the same digest.

    Raises:
        AlreadyFinishedError: if the data are there already and `overwrite` is not set.
        DataError: for scans that are missing, contradictory or too often bad.
    """
    if not overwrite:
        open_output(layout.data, MANIFEST, overwrite=False)
    # listed before an older result is removed: a wrong path must not cost it
    source = open_source(config.data)
    plan = steps.plan(source, config.data)
    connect()
    with tracking.start_run(config, layout.workdir, "prepare") as run:
        for note in plan.notes:
            print(f"prepare: {note}", flush=True)
        store = open_step(layout.data, MANIFEST, config, overwrite)
        results = list(_build(source, plan, config.data, store))
        manifest = steps.finish(plan, results, config.data, store)
        _log(run, manifest, store)
    _say(manifest, store, known=len(plan.notes))
    return manifest


def _build(
    source: Source, plan: steps.PreparePlan, config: DataConfig, store: Store
) -> Iterator[steps.ShardResult]:
    """Every shard, built by Ray tasks; only counts and thumbnails come back.

    Plans and results travel as bytes, since Arrow has no column type for them.
    """

    def build(row: dict[str, Any]) -> dict[str, Any]:
        shard = pickle.loads(row["plan"])
        result = steps.build_shard(source, shard, config, store)
        return {"result": pickle.dumps(result)}

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # that it shows no bars, and its own end
    rows = [{"plan": pickle.dumps(shard)} for shard in plan.shards]
    built = ray.data.from_items(rows, override_num_blocks=len(rows)).map(build)
    with Progress("prepare", sum(len(shard.items) for shard in plan.shards), "images") as progress:
        for row in built.iter_rows():
            result = pickle.loads(row["result"])
            progress.update(len(result.checksums) + len(result.quarantined))
            yield result


def _log(run: tracking.Run, manifest: Manifest, store: Store) -> None:
    run.log_dataset(manifest.digest, "real", "prepare")
    run.log_metrics(
        {f"images_{split}": sum(counts.values()) for split, counts in manifest.counts.items()}
        | {"quarantined": manifest.origin["quarantined"]}
    )
    for name in (MANIFEST, steps.QUARANTINE, steps.CONTACT_SHEET):
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
    print(f"prepare: wrote {store.url}; look at {steps.CONTACT_SHEET} there", flush=True)


COMMAND = Command(
    name="prepare",
    summary="Raw scans to checked, cropped, resized and split Parquet shards.",
    reads="data.path (a folder with one sub-folder a class, or COVIDx CT), or the phantom",
    writes="<workdir>/data: shards, manifest.json, quarantine.json, contact_sheet.png",
    costs="about 80 images a second and CPU core; no GPU",
    run=lambda request: prepare(request.config, request.layout, overwrite=request.overwrite),
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
