"""Raw scans to a finished shard set, in steps that any scheduler can spread.

``plan`` on one machine, ``build_shard`` for each plan anywhere and in any order, ``finish`` on
one machine again. What comes out is a function of the scans and the settings alone. An interrupted
run that is started again keeps the shards that it had finished (:mod:`gemix.data.unfinished`).
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from gemix.data import unfinished
from gemix.data.config import DataConfig
from gemix.data.contact_sheet import contact_sheet, thumbnail
from gemix.data.manifest import SPLITS, Manifest
from gemix.data.preprocess import preprocess, settings
from gemix.data.scan import BadImage, Quarantined
from gemix.data.selection import every_kth
from gemix.data.shard_plan import PreparePlan, ShardPlan, ShardResult
from gemix.data.shards import to_columns, write_shard
from gemix.data.sources import Source
from gemix.data.splits import assign
from gemix.errors import DataError
from gemix.storage import Store

QUARANTINE = "quarantine.json"
CONTACT_SHEET = "contact_sheet.png"

_SHARDS = 32  # at least so many where there are enough images, to keep many processors busy
_FEWEST_ROWS = 32
_SHOWN = 5  # quarantined files that an error message lists


def plan(source: Source, config: DataConfig) -> PreparePlan:
    """Lists, splits and cuts into shards; decodes nothing.

    Raises:
        DataError: as the source and the split do.
    """
    listing = every_kth(source.list(), config.slice_step)
    assigned = assign(listing, config)
    by_bytes = int(config.shard_mb * 1e6) // (config.resolution**2 * len(config.windows))
    by_count = max(_FEWEST_ROWS, -(-len(assigned.items) // _SHARDS))
    rows = max(1, min(by_bytes, by_count))
    shards = []
    for split in SPLITS:
        items = [item for item in assigned.items if item.split == split]
        shards += [
            ShardPlan(
                name=f"{split}-{number:05d}.parquet",
                split=split,
                items=tuple(items[start : start + rows]),
                classes=len(listing.classes),
            )
            for number, start in enumerate(range(0, len(items), rows))
        ]
    return PreparePlan(listing=listing, notes=listing.notes + assigned.notes, shards=tuple(shards))


def build_shard(source: Source, plan: ShardPlan, config: DataConfig, store: Store) -> ShardResult:
    """Writes the shard, unless an interrupted run has done so; bad files are set aside."""
    result = unfinished.kept(store, plan, config)
    if result is None:
        result = _build(source, plan, config, store)
        unfinished.keep(store, plan, config, result)
    return result


def _build(source: Source, plan: ShardPlan, config: DataConfig, store: Store) -> ShardResult:
    images, items, quarantined = [], [], []
    for item in plan.items:
        try:
            images.append(preprocess(source.load(item), config))
            items.append(item)
        except BadImage as reason:
            quarantined.append(Quarantined(source=item.key, reason=str(reason)))
    if not items:
        return ShardResult(entry=None, quarantined=tuple(quarantined), checksums=(), thumbnails={})
    labels = [item.class_index for item in items]
    columns = to_columns(
        np.stack(images),
        np.eye(plan.classes, dtype=np.float32)[labels],
        class_index=labels,
        patients=[str(item.group) for item in items],
        sources=[item.key for item in items],
    )
    first = {label: labels.index(label) for label in set(labels)}
    return ShardResult(
        entry=write_shard(store, plan.name, columns, plan.split),
        quarantined=tuple(quarantined),
        checksums=tuple(columns["checksum"]),
        thumbnails={label: thumbnail(images[row]) for label, row in first.items()},
    )


def finish(
    plan: PreparePlan, results: Iterable[ShardResult], config: DataConfig, store: Store
) -> Manifest:
    """Checks the whole and writes quarantine list, contact sheet and, last, the manifest.

    Raises:
        DataError: if more than ``config.max_bad_fraction`` of the files are bad, or a class has
            lost all its training images.
    """
    results = sorted(results, key=lambda result: result.entry.name if result.entry else "")
    bad = sorted((b for r in results for b in r.quarantined), key=lambda b: b.source)
    store.write_json(QUARANTINE, [dataclasses.asdict(b) for b in bad])
    total = len(plan.listing.items)
    _check_quarantine(bad, total, config, store)
    manifest = Manifest.of(
        (result.entry for result in results if result.entry),
        kind="real",
        classes=plan.listing.classes,
        resolution=config.resolution,
        channels=len(config.windows),
        preprocessing=settings(config),
        origin={
            "source": config.source,
            "listed": plan.listing.listed,
            "found": total,
            "quarantined": len(bad),
            "reasons": [dataclasses.asdict(b) for b in bad[:100]],
            "notes": [*plan.notes, *_duplicates(results)],
        },
    )
    for name, count in manifest.counts["train"].items():
        if count == 0:
            raise DataError(
                f"class {name!r} has no training image left after the quarantine "
                f"({store.url}/{QUARANTINE}); mend or add files of this class"
            )
    store.write_bytes(CONTACT_SHEET, _sheet(plan, results))
    for name in set(store.list()) - {shard.name for shard in manifest.shards}:
        if name.endswith(".parquet"):  # left by an interrupted run with other settings
            store.delete(name)
    manifest.save(store)
    unfinished.forget(store)
    return manifest


def prepare_here(source: Source, config: DataConfig, store: Store) -> Manifest:
    """All steps in this process, for notebooks and tests; ``jobs/prepare.py`` spreads them."""
    whole = plan(source, config)
    results = [build_shard(source, shard, config, store) for shard in whole.shards]
    return finish(whole, results, config, store)


def _check_quarantine(bad: list[Quarantined], total: int, config: DataConfig, store: Store) -> None:
    if len(bad) <= config.max_bad_fraction * total:
        return
    shown = "\n".join(f"  {b.source}: {b.reason}" for b in bad[:_SHOWN])
    more = f"\n  and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    raise DataError(
        f"{len(bad)} of {total} files are bad, more than data.max_bad_fraction = "
        f"{config.max_bad_fraction:g} allows:\n{shown}{more}\nAll are listed in "
        f"{store.url}/{QUARANTINE}; mend the files or raise data.max_bad_fraction."
    )


def _duplicates(results: Iterable[ShardResult]) -> list[str]:
    """A note on images that occur more than once, which a split by patient cannot know of."""
    splits: dict[str, list[str]] = defaultdict(list)
    for result in results:
        for checksum in result.checksums:
            splits[checksum].append(result.entry.split if result.entry else "")
    repeated = {key: where for key, where in splits.items() if len(where) > 1}
    if not repeated:
        return []
    crossing = sum(len(set(where)) > 1 for where in repeated.values())
    extra = Counter({key: len(where) - 1 for key, where in repeated.items()}).total()
    return [f"{extra} images are exact duplicates of others; {crossing} occur in several splits"]


def _sheet(plan: PreparePlan, results: Iterable[ShardResult]) -> bytes:
    rows: dict[str, list[np.ndarray]] = {name: [] for name in plan.listing.classes}
    for result in results:
        for label, image in result.thumbnails.items():
            rows[plan.listing.classes[label]].append(image)
    return contact_sheet(rows)
