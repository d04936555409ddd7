"""Splits by group (train, validation, test), so that no patient is in two of them.

Neighbouring slices of one patient are nearly the same image; a random split of slices measures
memory, not skill. The split of a group is a function of its name and the seed alone, so that groups
that are added move no other, and shares are met on average, not to the image; a note says where one
is far off. There are two exceptions: in a class of few groups one may be moved to a split that got
none by chance, which a note says; and folds cut each class into equal parts, which shift as groups
are added. Splits inherited from an earlier set take precedence.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from gemix.data.config import DataConfig
from gemix.data.shards.manifest import SPLITS

TRAIN, VAL, TEST = range(len(SPLITS))

_NEEDED = (TRAIN, TEST, VAL)  # in this order where a class has too few groups
_IMBALANCE = 2.0  # times the share that is wanted, or as much below


def split_settings(config: DataConfig) -> dict[str, Any]:
    """Return the settings that decide the splits, for the manifest."""
    common = {"split_seed": config.split_seed, "val_fraction": config.val_fraction}
    if config.folds:
        return common | {"fold": config.fold, "folds": config.folds}
    return common | {"test_fraction": config.test_fraction}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assignment:
    """Splits of N images, int8 [N], indices into `SPLITS`, and notes on how they were found."""

    split: np.ndarray
    notes: tuple[str, ...]


def assign(
    group: np.ndarray,
    names: Sequence[str],
    class_index: np.ndarray,
    official: np.ndarray,
    classes: Sequence[str],
    config: DataConfig,
) -> Assignment:
    """Assign the split of its group to every image.

    Official splits are kept where every class has an official training image; images on no list
    then train, and a split that the lists lack is taken out of the training groups. With folds,
    official splits are not used, and every group is tested in one fold. With ``config.splits_from``
    the given splits are inherited from an earlier set: groups that have one keep it, the others
    are drawn. A class of fewer groups than splits fills train first and test second, and a note
    says so.

    Args:
        group: int64 [N], an index into `names`.
        names: of the G groups; some may be of no image.
        class_index: int [N], 0 to K - 1.
        official: int8 [N], an index into `SPLITS`, or -1; with ``config.splits_from`` that of the
            earlier set.
        classes: K names.
        config: fractions, folds and seed.
    """
    label = _majority(group, class_index, len(names), len(classes))
    position = _positions(names, label, config)
    edges = {TEST: 0.0, VAL: config.test_share, TRAIN: config.test_share + config.val_fraction}
    # test from 0, then val, then train up to 1
    drawn = np.select([position < edges[VAL], position < edges[TRAIN]], [TEST, VAL], TRAIN)
    wanted = [TRAIN]
    wanted += [TEST] if config.test_share else []
    wanted += [VAL] if config.val_fraction else []
    kept = None
    if config.splits_from:
        inherited, notes = _inherited(group, official, len(names))
        split, movable = np.where(inherited >= 0, inherited, drawn), inherited < 0
    else:
        kept, notes = _official(group, class_index, official, len(names), classes, config)
        split, movable = drawn, np.ones(len(names), bool)
    if config.folds:  # the test split is the fold
        wanted, movable = [s for s in wanted if s != TEST], drawn != TEST
    if kept is not None:
        wanted = [s for s in wanted if not (kept == s).any()]
        movable = kept == TRAIN
        split = np.where(movable & np.isin(drawn, wanted), drawn, kept)
        notes += [_official_split_note(s, split[label >= 0]) for s in wanted]
    for index, name in enumerate(classes):
        mine = np.flatnonzero(label == index)
        split[mine], found = _fill_empty_splits(
            split[mine], position[mine], movable[mine], wanted, edges, name
        )
        notes += found
    if kept is None and not config.folds:
        notes += _imbalance_notes(split[group], class_index, classes, config)
    return Assignment(split=split.astype(np.int8)[group], notes=tuple(notes))


def _positions(names: Sequence[str], label: np.ndarray, config: DataConfig) -> np.ndarray:
    """Return a position from 0 to 1 for each group, from its name and the seed.

    For folds, the groups of a class lie at equal distances, and each fold rotates them.
    """
    position = np.empty(len(names))
    for row, name in enumerate(names):
        text = f"{config.split_seed}/{name}".encode()
        position[row] = int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big") / 2**48
    for index in np.unique(label) if config.folds else ():
        mine = np.flatnonzero(label == index)
        rank = position[mine].argsort().argsort()
        position[mine] = ((rank + 0.5) / len(mine) - config.fold / config.folds) % 1
    return position


def _official(
    group: np.ndarray,
    class_index: np.ndarray,
    official: np.ndarray,
    groups: int,
    classes: Sequence[str],
    config: DataConfig,
) -> tuple[np.ndarray | None, list[str]]:
    """Return the official split of each group, None where there is none that can be used."""
    if (official < 0).all():
        return None, []
    if config.folds:
        return None, [f"the official splits are not used: data.folds={config.folds} draws its own"]
    trained = np.unique(class_index[official == TRAIN])
    lacking = [name for index, name in enumerate(classes) if index not in trained]
    if lacking:
        return None, [
            f"the official lists leave no training image of {', '.join(lacking)}: split by "
            "patient instead"
        ]
    # a patient on two lists goes to the later of train, val, test, never to both
    split = np.zeros(groups, np.int64)
    np.maximum.at(split, group, np.maximum(official, TRAIN))
    shared = len(np.unique(group[np.maximum(official, TRAIN) != split[group]]))
    notes = [f"{shared} patients were on several official lists"] if shared else []
    return split, ["official splits kept", *notes]


def _inherited(group: np.ndarray, earlier: np.ndarray, groups: int) -> tuple[np.ndarray, list[str]]:
    """Return the split of each group in an earlier set, -1 of new ones.

    New scans can join two groups of neighbours: the group then takes the later split.
    """
    split = np.full(groups, -1, np.int64)
    np.maximum.at(split, group, earlier)
    moved = (earlier >= 0) & (earlier != split[group])
    if not moved.any():
        return split, []
    return split, [
        f"{moved.sum()} images of {len(np.unique(group[moved]))} groups are in another split than "
        "in data.splits_from: new scans join them to images that are tested on, or validated with"
    ]


def _official_split_note(split: int, splits: np.ndarray) -> str:
    return (
        f"no image of the official {SPLITS[split]} list was found: {(splits == split).sum()} "
        "training patients taken"
    )


def _majority(group: np.ndarray, class_index: np.ndarray, groups: int, classes: int) -> np.ndarray:
    """Return the most frequent class of each group; -1 of a group without an image."""
    pairs = group * classes + class_index
    counts = np.bincount(pairs, minlength=groups * classes).reshape(groups, classes)
    return np.where(counts.any(axis=1), counts.argmax(axis=1), -1)


def _imbalance_notes(
    split: np.ndarray, class_index: np.ndarray, classes: Sequence[str], config: DataConfig
) -> list[str]:
    """Return notes on classes whose shares in the held-out splits are far from those wanted."""
    notes = []
    for index, name in enumerate(classes):
        mine = split[class_index == index]
        for split_index, wanted in ((VAL, config.val_fraction), (TEST, config.test_fraction)):
            share = (mine == split_index).sum() / max(1, len(mine))
            if not wanted / _IMBALANCE <= share <= wanted * _IMBALANCE:
                notes.append(
                    f"class {name!r}: {share:.0%} of its images fell to {SPLITS[split_index]}, "
                    f"{wanted:.0%} wanted, since its groups are few or of unequal size; another "
                    "data.split_seed moves them, and data.folds tests on each of them in turn"
                )
    return notes


def _fill_empty_splits(
    split: np.ndarray,
    position: np.ndarray,
    movable: np.ndarray,
    wanted: Sequence[int],
    edges: dict[int, float],
    name: str,
) -> tuple[np.ndarray, list[str]]:
    """Move groups of one class so that every wanted split has one, if there are enough."""
    split, notes, none = split.copy(), [], []
    for one in wanted:
        if (split == one).any():
            continue
        counts = np.bincount(split, minlength=len(SPLITS))
        later = [other for other in _NEEDED[_NEEDED.index(one) :] if counts[other] == 1]
        candidates = np.flatnonzero(movable & ((counts[split] > 1) | np.isin(split, later)))
        if not len(candidates):
            none.append(SPLITS[one])
            continue
        nearest = candidates[np.abs(position[candidates] - edges[one]).argmin()]
        split[nearest] = one
        notes.append(f"class {name!r}: by chance no group fell to {SPLITS[one]}; one was moved")
    if none:
        notes.append(
            f"class {name!r} has {len(split)} patients or groups of neighbours: none is left for "
            f"{' and '.join(none)}; add patients for results that mean something"
        )
    return split, notes
