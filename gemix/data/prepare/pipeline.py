"""The pipeline from raw scans to a shard set, parallel wherever a map function makes it so.

Scans are listed; parts of the listing are decoded and preprocessed, each image once
(:mod:`gemix.data.prepare.staging`); duplicates, groups and splits are decided from small columns
(:mod:`gemix.data.prepare.assignment`); and the images are written to shards
(:mod:`gemix.data.prepare.write_shards`). The result is a function of the scans and the settings
alone. An interrupted run that is started again reuses the parts and shards that it had finished
(:mod:`gemix.io.resume_cache`).
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from gemix.core.errors import DataError
from gemix.data.config import DataConfig
from gemix.data.dataset_card.contact_sheet import CONTACT_SHEET, contact_sheet
from gemix.data.dataset_card.description import Description
from gemix.data.dataset_card.markdown import CARD, card
from gemix.data.map_fn import MapFn, serial_map
from gemix.data.prepare import splits
from gemix.data.prepare.assignment import ImageAssignment, assign_images
from gemix.data.prepare.index import read_index
from gemix.data.prepare.inherit_splits import inherit_splits
from gemix.data.prepare.quarantine import QUARANTINE, check_bad_share, write_quarantine
from gemix.data.prepare.selection import every_kth
from gemix.data.prepare.staging import MASK, Staged, cut_into_parts, from_png, stage
from gemix.data.prepare.write_shards import WrittenShard, is_shard, plan_shards, write_planned_shard
from gemix.data.preprocessing import preprocess
from gemix.data.scan import Quarantined
from gemix.data.shards.manifest import Manifest
from gemix.data.sources import Listing, Source
from gemix.io import resume_cache
from gemix.io.storage import Store

_REASONS = 100  # quarantined files that the manifest lists


def prepare_serial(source: Source, config: DataConfig, store: Store) -> Manifest:
    """List and prepare all scans in this process, for notebooks and tests."""
    return prepare(source, list_scans(source, config), config, store)


def check_locations(config: DataConfig, store: Store) -> None:
    """Check that writing or clearing the output directory touches no scan.

    Raises:
        DataError: if ``config.path`` and the output are one directory or one holds the other, or
            if the output is the set that ``config.splits_from`` names.
    """
    if config.splits_from and _canonical(config.splits_from) == _canonical(store.url):
        raise DataError(
            f"data.splits_from {config.splits_from}: the result goes there too, and would replace "
            "the splits that it is to keep; choose another --workdir"
        )
    if not config.path:
        return
    scans, output = _canonical(config.path), _canonical(store.url)
    if f"{scans}/".startswith(f"{output}/") or f"{output}/".startswith(f"{scans}/"):
        raise DataError(
            f"data.path {config.path}: the result goes to {store.url}, where it would mix with the "
            "scans or replace them; choose another --workdir"
        )


def _canonical(url: str) -> str:
    """Return one name for all URLs or paths of a directory: links resolved, no final slash."""
    return url.rstrip("/") if "://" in url else os.path.realpath(url)


def list_scans(source: Source, config: DataConfig, map_fn: MapFn = serial_map) -> Listing:
    """List the scans to prepare without decoding any.

    Raises:
        DataError: as the source does; for a class with fewer images than splits; or for an earlier
            set that is not there or of another archive.
    """
    listing = every_kth(source.list(map_fn), config.slice_step)
    if config.splits_from:
        listing = inherit_splits(listing, config.splits_from)
    needed = 1 + (config.val_fraction > 0) + (config.test_share > 0)
    counts = np.bincount(listing.items.table["class_index"], minlength=len(listing.classes))
    for name, count in zip(listing.classes, counts.tolist(), strict=True):
        if count < needed:
            raise DataError(
                f"class {name!r}: {count} images cannot be split into {needed} parts; add "
                "images, or set data.val_fraction or data.test_fraction to 0"
            )
    return listing


def prepare(
    source: Source, listing: Listing, config: DataConfig, store: Store, map_fn: MapFn = serial_map
) -> Manifest:
    """Write the shards, the card, the contact sheet, the quarantine list and, last, the manifest.

    Raises:
        DataError: if more than ``config.max_bad_fraction`` of the files of the archive or of a
            class are bad, or a class has lost all its training images.
    """
    read = functools.partial(stage, source=source, config=config, store=store)
    staged = list(map_fn(read, cut_into_parts(listing.items, config), "parts of scans read"))
    bad = [*listing.unusable, *(one for part in staged for one in part.quarantined)]
    write_quarantine(bad, store)
    check_bad_share(bad, listing, config, store)
    if not any(part.rows for part in staged):
        raise DataError(
            f"data.path {config.path}: no scan is left; lower data.min_lung_fraction or correct "
            f"the files in {store.url}/{QUARANTINE}"
        )
    index = read_index(store, staged)
    assignment = assign_images(index, listing, config, store, map_fn)
    bad += assignment.quarantined
    write_quarantine(bad, store)
    check_bad_share(bad, listing, config, store)
    plans = plan_shards(index, assignment, listing.classes, config)
    write = functools.partial(
        write_planned_shard,
        config=config,
        parts={part.name: part.sha256 for part in staged},
        store=store,
    )
    written = list(map_fn(write, plans, "shards written"))
    manifest = Manifest.of(
        (shard.entry for shard in written),
        kind="real",
        classes=listing.classes,
        resolution=config.resolution,
        channels=len(config.windows),
        preprocessing=preprocess.preprocess_settings(config) | splits.split_settings(config),
        origin=_origin(listing, staged, assignment, written, bad, config),
    )
    _check_training(manifest)
    store.write_bytes(CONTACT_SHEET, _sheet(listing.classes, staged))
    store.write_bytes(CARD, card(manifest).encode())
    for name in set(store.list()) - {shard.name for shard in manifest.shards}:
        if is_shard(name):  # of an interrupted run with other settings
            store.delete(name)
    manifest.save(store)
    resume_cache.clear(store)
    return manifest


def _origin(
    listing: Listing,
    staged: Sequence[Staged],
    assignment: ImageAssignment,
    written: Sequence[WrittenShard],
    bad: Sequence[Quarantined],
    config: DataConfig,
) -> dict[str, Any]:
    """Return the origin of the images for the manifest."""
    left_out = Counter[str]()
    for part in staged:
        left_out.update(part.left_out)
    notes = [*listing.notes, *assignment.notes]
    if left_out[MASK]:
        notes.append(
            f"left out {left_out[MASK]} images of two grey levels: segmentation masks, no scans"
        )
    histograms = np.sum([shard.histograms for shard in written], axis=0)
    return {
        "source": config.source,
        "listed": listing.listed,
        "found": len(listing.items) + len(listing.unusable),
        "quarantined": len(bad),
        "reasons": [dataclasses.asdict(one) for one in bad[:_REASONS]],
        "left_out": dict(left_out),
        **assignment.facts,
        "histograms": dict(zip(listing.classes, histograms.tolist(), strict=True)),
        "notes": notes,
    }


def _check_training(manifest: Manifest) -> None:
    """Raise DataError for a class without a training image."""
    for name, count in manifest.counts["train"].items():
        if count == 0:
            counts = Description(manifest=manifest).selection_counts
            steps = "; ".join(f"{what}: {n}" for what, n in counts)
            raise DataError(
                f"class {name!r} has no training image left (all classes: {steps}); correct or add "
                "files of this class, or ease the rule that leaves them out"
            )


def _sheet(classes: Sequence[str], staged: Sequence[Staged]) -> bytes:
    """Draw scans before and after preparation, by class."""
    rows = {
        name: [
            tuple(from_png(png) for png in part.shown[label])
            for part in staged
            if label in part.shown
        ]
        for label, name in enumerate(classes)
    }
    return contact_sheet(rows)
