"""``curation.json``: what was left out of a curated set, and by which rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gemix.io.records import read_record
from gemix.io.storage import Store

CURATION = "curation.json"
NEAR_TRAINING = "removed_near_training"  # in a manifest's origin: images removed by such rules


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuleCount:
    """Count the images that one rule removed.

    Attributes:
        rule: its name.
        meaning: what it removes.
        removed: images that it removed and no rule before it.
        alone: images that it would have removed by itself.
    """

    rule: str
    meaning: str
    removed: int
    alone: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassCount:
    """Images that were asked for one class, before curation and after it."""

    before: int
    kept: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curation:
    """``curation.json``.

    Attributes:
        digest: of the curated set.
        parent: of the set that it was taken from.
        images: of the parent.
        kept: of them.
        rules: in the order of their application.
        by_class: by the class most asked for.
        settings: what decided, beside the parent: section ``curation``, extractor, digest of the
            real images.
    """

    digest: str
    parent: str
    images: int
    kept: int
    rules: tuple[RuleCount, ...]
    by_class: Mapping[str, ClassCount]
    settings: Mapping[str, Any]


def count_removed(
    removed: Mapping[str, np.ndarray], meanings: Mapping[str, str]
) -> tuple[tuple[RuleCount, ...], np.ndarray]:
    """Return what each rule removed, and which images stay, bool [N].

    Args:
        removed: which images each rule removes, bool [N], in the order of the rules.
        meanings: of the rules.
    """
    counts, stays = [], np.ones(len(next(iter(removed.values()))), bool)
    for name, mine in removed.items():
        counts.append(
            RuleCount(
                rule=name,
                meaning=meanings[name],
                removed=int((mine & stays).sum()),
                alone=int(mine.sum()),
            )
        )
        stays &= ~mine
    return tuple(counts), stays


def count_classes(
    classes: Sequence[str], asked: np.ndarray, stays: np.ndarray
) -> dict[str, ClassCount]:
    """Return the images of each class most asked for; float32 [N, K] and bool [N]."""
    wanted = asked.argmax(axis=1)
    before, kept = (
        np.bincount(rows, minlength=len(classes)).tolist() for rows in (wanted, wanted[stays])
    )
    return {
        name: ClassCount(before=a, kept=b) for name, a, b in zip(classes, before, kept, strict=True)
    }


def read_curation(store: Store) -> Curation | None:
    """Read ``curation.json`` of a set; None where it was not curated.

    Raises:
        DataError: if it is damaged.
    """
    if not store.exists(CURATION):
        return None
    return read_record(store, CURATION, Curation, "run gemix curate --overwrite")
