"""Assignment of all staged images to groups and splits, decided from small columns."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from gemix.data.config import DataConfig
from gemix.data.dataset_card.description import NEIGHBOURS
from gemix.data.map_fn import MapFn
from gemix.data.prepare.duplicates import find_duplicates, keep_one
from gemix.data.prepare.index import NO_SPLIT, Index
from gemix.data.prepare.neighbour_groups import find_neighbour_groups
from gemix.data.prepare.splits import assign
from gemix.data.scan import Quarantined
from gemix.data.shards.manifest import SPLITS
from gemix.data.sources import Listing
from gemix.io.storage import Store

_LARGE = 0.25  # of a class: such a group leaves little choice to a split


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageAssignment:
    """Groups and splits of N staged images.

    Attributes:
        split: int8 [N], an index into `SPLITS`, or -1 for an image that is not used.
        group: int64 [N], an index into `names`.
        names: names of the groups.
        quarantined: images that are set aside because their duplicates have other labels.
        facts: entries of the manifest's origin: duplicates, grouping, groups.
        notes: plain sentences.
    """

    split: np.ndarray
    group: np.ndarray
    names: Sequence[str]
    quarantined: tuple[Quarantined, ...]
    facts: dict[str, Any]
    notes: tuple[str, ...]


def assign_images(
    index: Index, listing: Listing, config: DataConfig, store: Store, map_fn: MapFn
) -> ImageAssignment:
    """Decide duplicates, groups and splits.

    The order matters: an image with two labels is not used; the others are split by group; and of
    duplicates in two groups the one in the later split is kept.
    """
    classes = listing.classes
    # splits of an earlier set, unlike official lists, do not separate neighbours
    unlisted = dataclasses.replace(index, split=np.full_like(index.split, NO_SPLIT))
    runs = find_neighbour_groups(unlisted if config.splits_from else index, store, map_fn)
    group = index.group.copy()
    group[runs.rows] = len(index.group_names) + runs.group
    # named after its first image, so that images added behind it leave the name as it is
    generated = [f"run-{key:016x}" for key in index.key_hash[runs.first].tolist()]
    names = [*index.group_names, *generated]
    copies = find_duplicates(index.checksum, index.class_index)
    good = ~copies.conflicting
    used = np.flatnonzero(good)
    assigned = assign(
        group[used], names, index.class_index[used], index.split[used], classes, config
    )
    split = np.full(len(index), -1, np.int8)
    split[used] = np.where(keep_one(copies.content_id[used], assigned.split), assigned.split, -1)
    dropped = int((split[used] < 0).sum())
    duplicates = {
        "exact": dropped,
        "label_conflicts": int(copies.conflicting.sum()),
        "joined": runs.joined,
    }
    notes = [*_notes_on_neighbours(index, runs.rows, group, classes, config), *assigned.notes]
    if dropped:
        notes.append(f"{dropped} images are exact duplicates of others and were dropped")
    return ImageAssignment(
        split=split,
        group=group,
        names=names,
        quarantined=_conflicts(index, copies.content_id, copies.conflicting, store),
        facts={
            "duplicates": duplicates,
            "grouping": NEIGHBOURS if len(runs.rows) else listing.group_kind,
            "groups": _count_groups(split, group, index.class_index, classes),
        },
        notes=tuple(notes),
    )


def _notes_on_neighbours(
    index: Index, rows: np.ndarray, group: np.ndarray, classes: Sequence[str], config: DataConfig
) -> list[str]:
    """Return notes on groups that stand in for patients, and on one that is suspiciously large."""
    if not len(rows):
        return []
    notes = [
        f"patients of {len(rows)} images are not known: split by {len(np.unique(group[rows]))} "
        "runs of neighbouring files that look alike"
    ]
    for label, name in enumerate(classes):
        mine = rows[index.class_index[rows] == label]
        largest = np.bincount(group[mine]).max() if len(mine) else 0
        if largest > max(1, _LARGE * len(mine)):
            notes.append(
                f"class {name!r}: {largest} of {len(mine)} images look like one patient's; if "
                "they are not, let data.patient_pattern find the patient in the file's path"
            )
    return notes


def _conflicts(
    index: Index, content_id: np.ndarray, conflicting: np.ndarray, store: Store
) -> tuple[Quarantined, ...]:
    """Quarantine every image that has a duplicate with another label."""
    rows = np.flatnonzero(conflicting)
    keys: dict[int, str] = {}
    for part in np.unique(index.part[rows]):
        names = store.read_columns(index.parts[part], ["key"])["key"]
        mine = rows[index.part[rows] == part]
        keys |= zip(mine.tolist(), names.take(index.row[mine]).to_pylist(), strict=True)
    same: dict[int, list[int]] = defaultdict(list)
    for row in rows.tolist():
        same[int(content_id[row])].append(row)
    bad = []
    for copies in same.values():
        for row in copies:
            label = index.class_index[row]
            twin = next(copy for copy in copies if index.class_index[copy] != label)
            reason = f"the same image as {keys[twin]}, which has another label; keep one of them"
            bad.append(Quarantined(source=keys[row], reason=reason))
    return tuple(bad)


def _count_groups(
    split: np.ndarray, group: np.ndarray, class_index: np.ndarray, classes: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Count groups by split and class; one with images of two classes counts in both."""
    return {
        name: {
            label: len(np.unique(group[(split == number) & (class_index == index)]))
            for index, label in enumerate(classes)
        }
        for number, name in enumerate(SPLITS)
    }
