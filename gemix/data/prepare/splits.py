"""Train, validation and test by group, so that no patient is on two sides.

Neighbouring slices of one patient are nearly the same image; a random split of slices measures
memory, not skill. The side of a group is a function of its name and the seed alone, so that groups
that are added move no other, and shares are met on average, not to the image; a note says where
one is far off. There are two exceptions: in a class of few groups one may be moved to where none
fell by chance, which a note says; and folds cut each class into equal parts, which shift as groups
are added. Sides that an earlier set has settled come before all that.
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
_FAR_OFF = 2.0  # times the share that is wanted, or as much below


def settings(config: DataConfig) -> dict[str, Any]:
    """What decides the splits that no list gives, for the manifest."""
    common = {"split_seed": config.split_seed, "val_fraction": config.val_fraction}
    if config.folds:
        return common | {"fold": config.fold, "folds": config.folds}
    return common | {"test_fraction": config.test_fraction}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assignment:
    """The split of each of N images (int8 [N], an index into `SPLITS`), and how it came to be."""

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
    """Gives every image the split of its group.

    Official splits are kept where every class has an official training image; images on no list
    then train, and a split that the lists lack is taken out of the training groups. Where folds
    are asked for, official splits are not used, and every group is tested in one fold. With
    ``config.splits_from`` the splits given are those of an earlier set: groups with one keep it,
    and the others are drawn. A class of fewer groups than splits is put into train first and test
    second, and a note says so.

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
    place = _places(names, label, config)
    edges = {TEST: 0.0, VAL: config.test_share, TRAIN: config.test_share + config.val_fraction}
    # test from 0, then val, then train up to 1
    drawn = np.select([place < edges[VAL], place < edges[TRAIN]], [TEST, VAL], TRAIN)
    wanted = [TRAIN]
    wanted += [TEST] if config.test_share else []
    wanted += [VAL] if config.val_fraction else []
    kept = None
    if config.splits_from:
        settled, notes = _settled(group, official, len(names))
        split, movable = np.where(settled >= 0, settled, drawn), settled < 0
    else:
        kept, notes = _official(group, class_index, official, len(names), classes, config)
        split, movable = drawn, np.ones(len(names), bool)
    if config.folds:  # who is tested in which fold is settled
        wanted, movable = [s for s in wanted if s != TEST], drawn != TEST
    if kept is not None:
        wanted = [s for s in wanted if not (kept == s).any()]
        movable = kept == TRAIN
        split = np.where(movable & np.isin(drawn, wanted), drawn, kept)
        notes += [_taken(s, split[label >= 0]) for s in wanted]
    for index, name in enumerate(classes):
        mine = np.flatnonzero(label == index)
        split[mine], found = _fill(split[mine], place[mine], movable[mine], wanted, edges, name)
        notes += found
    if kept is None and not config.folds:
        notes += _far_off(split[group], class_index, classes, config)
    return Assignment(split=split.astype(np.int8)[group], notes=tuple(notes))


def _places(names: Sequence[str], label: np.ndarray, config: DataConfig) -> np.ndarray:
    """A number from 0 to 1 for each group, from its name and the seed.

    For folds, the groups of a class lie at equal distances, and a fold turns the circle.
    """
    place = np.empty(len(names))
    for row, name in enumerate(names):
        text = f"{config.split_seed}/{name}".encode()
        place[row] = int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big") / 2**48
    for index in np.unique(label) if config.folds else ():
        mine = np.flatnonzero(label == index)
        rank = place[mine].argsort().argsort()
        place[mine] = ((rank + 0.5) / len(mine) - config.fold / config.folds) % 1
    return place


def _official(
    group: np.ndarray,
    class_index: np.ndarray,
    official: np.ndarray,
    groups: int,
    classes: Sequence[str],
    config: DataConfig,
) -> tuple[np.ndarray | None, list[str]]:
    """The official split of each group; None where there is none that can be used."""
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


def _settled(group: np.ndarray, earlier: np.ndarray, groups: int) -> tuple[np.ndarray, list[str]]:
    """The split of each group in an earlier set, -1 of new ones.

    Scans between two runs of neighbours can make one of them: what was tested on stays so.
    """
    split = np.full(groups, -1, np.int64)
    np.maximum.at(split, group, earlier)
    moved = (earlier >= 0) & (earlier != split[group])
    if not moved.any():
        return split, []
    return split, [
        f"{moved.sum()} images of {len(np.unique(group[moved]))} groups are on another side than "
        "in data.splits_from: new scans join them to images that are tested on, or validated with"
    ]


def _taken(split: int, splits: np.ndarray) -> str:
    return (
        f"no image of the official {SPLITS[split]} list was found: {(splits == split).sum()} "
        "training patients taken"
    )


def _majority(group: np.ndarray, class_index: np.ndarray, groups: int, classes: int) -> np.ndarray:
    """The most frequent class of each group, since a patient may have several; -1 of no image."""
    pairs = group * classes + class_index
    counts = np.bincount(pairs, minlength=groups * classes).reshape(groups, classes)
    return np.where(counts.any(axis=1), counts.argmax(axis=1), -1)


def _far_off(
    split: np.ndarray, class_index: np.ndarray, classes: Sequence[str], config: DataConfig
) -> list[str]:
    """A word on classes whose images are on the held-out sides in other shares than wanted."""
    notes = []
    for index, name in enumerate(classes):
        mine = split[class_index == index]
        for side, wanted in ((VAL, config.val_fraction), (TEST, config.test_fraction)):
            share = (mine == side).sum() / max(1, len(mine))
            if not wanted / _FAR_OFF <= share <= wanted * _FAR_OFF:
                notes.append(
                    f"class {name!r}: {share:.0%} of its images fell to {SPLITS[side]}, "
                    f"{wanted:.0%} wanted, since its groups are few or of unequal size; another "
                    "data.split_seed moves them, and data.folds tests on each of them in turn"
                )
    return notes


def _fill(
    split: np.ndarray,
    place: np.ndarray,
    movable: np.ndarray,
    wanted: Sequence[int],
    edges: dict[int, float],
    name: str,
) -> tuple[np.ndarray, list[str]]:
    """Moves groups of one class so that no wanted split goes without it, if there are enough."""
    split, notes, none = split.copy(), [], []
    for one in wanted:
        if (split == one).any():
            continue
        counts = np.bincount(split, minlength=len(SPLITS))
        later = [other for other in _NEEDED[_NEEDED.index(one) :] if counts[other] == 1]
        givers = np.flatnonzero(movable & ((counts[split] > 1) | np.isin(split, later)))
        if not len(givers):
            none.append(SPLITS[one])
            continue
        nearest = givers[np.abs(place[givers] - edges[one]).argmin()]
        split[nearest] = one
        notes.append(f"class {name!r}: by chance no group fell to {SPLITS[one]}; one was moved")
    if none:
        notes.append(
            f"class {name!r} has {len(split)} patients or groups of neighbours: none is left for "
            f"{' and '.join(none)}; add patients for results that mean something"
        )
    return split, notes
