"""Train, validation and test by patient, so that no patient is on two sides.

Neighbouring slices of one patient are nearly the same image; a random split of slices measures
memory, not skill. Where patients are not known, contiguous blocks of the natural file order stand
in for them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence

from gemix.data.config import DataConfig
from gemix.data.manifest import SPLITS
from gemix.data.sources.base import Item, Listing
from gemix.errors import DataError
from gemix.randomness import Stream, sample_rng

# blocks a class: enough that val and test have several each, few enough that they are longer than
# one patient's run of slices
_BLOCKS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assignment:
    """Items that all have a group and a split, and notes on how they came by it."""

    items: tuple[Item, ...]
    notes: tuple[str, ...]


def assign(listing: Listing, config: DataConfig) -> Assignment:
    """Gives every item a group and a split; all items of a group get the same split.

    Official splits are kept where every class has an official training image; a split that is
    missing from them is then taken out of the training groups. Else groups are drawn, seeded and
    class by class, until the splits have their shares of the images. A class of fewer groups than
    splits is put into train first and test second, and a note says so.

    Raises:
        DataError: for a class with fewer images than there are splits.
    """
    _check_sizes(listing, config)
    items, notes = _with_groups(listing)
    if any(item.split for item in items):
        items, found = _official(items, listing.classes)
        notes += found
    wanted = {"val": config.val_fraction, "test": config.test_fraction}
    if any(item.split is None for item in items):
        items, found = _draw(items, listing.classes, wanted, config.split_seed)
        return Assignment(items=tuple(items), notes=(*notes, *found))
    for split, fraction in wanted.items():
        if fraction > 0 and not any(item.split == split for item in items):
            items, found = _take_from_train(items, listing.classes, split, fraction, config)
            notes += found
    return Assignment(items=tuple(items), notes=tuple(notes))


def _check_sizes(listing: Listing, config: DataConfig) -> None:
    needed = 1 + (config.val_fraction > 0) + (config.test_fraction > 0)
    counts = Counter(item.class_index for item in listing.items)
    for index, name in enumerate(listing.classes):
        if counts[index] < needed:
            raise DataError(
                f"class {name!r}: {counts[index]} images cannot be split into {needed} parts; add "
                "images, or set data.val_fraction or data.test_fraction to 0"
            )


def _with_groups(listing: Listing) -> tuple[list[Item], list[str]]:
    """Items with a group each: the patient, else a block of neighbours of one class."""
    unknown = Counter(item.class_index for item in listing.items if item.group is None)
    if not unknown:
        return list(listing.items), []
    seen: Counter[int] = Counter()
    items = []
    for item in listing.items:
        if item.group is None:
            index, total = item.class_index, unknown[item.class_index]
            block = seen[index] * min(_BLOCKS, total) // total
            seen[index] += 1
            item = dataclasses.replace(item, group=f"{listing.classes[index]}/block-{block:02d}")
        items.append(item)
    return items, [
        "patients are not known: split by blocks of neighbouring files, "
        f"{_BLOCKS} a class where there are enough"
    ]


def _official(items: list[Item], classes: Sequence[str]) -> tuple[list[Item], list[str]]:
    """The official splits, one a group; all None where they leave a class without training."""
    trained = {item.class_index for item in items if item.split == "train"}
    lacking = [name for index, name in enumerate(classes) if index not in trained]
    if lacking:
        note = (
            f"the official lists leave no training image of {', '.join(lacking)}: split by "
            "patient instead"
        )
        return [dataclasses.replace(item, split=None) for item in items], [note]
    by_group: dict[str | None, set[str | None]] = defaultdict(set)
    for item in items:
        by_group[item.group].add(item.split)
    # a patient on two lists goes to the one that is later in this order, never to both
    final = {
        g: max(s, key=lambda split: SPLITS.index(split or "train")) for g, s in by_group.items()
    }
    shared = sum(len(splits) > 1 for splits in by_group.values())
    notes = [f"{shared} patients were on several official lists"] if shared else []
    kept = [dataclasses.replace(item, split=final[item.group]) for item in items]
    return kept, ["official splits kept", *notes]


def _draw(
    items: list[Item], classes: Sequence[str], fractions: dict[str, float], seed: int
) -> tuple[list[Item], list[str]]:
    """A seeded split of all groups, class by class."""
    members: dict[str | None, list[int]] = defaultdict(list)
    for item in items:
        members[item.group].append(item.class_index)
    by_class: dict[int, list[str | None]] = defaultdict(list)
    for group, indices in members.items():
        # a patient with images of several classes counts for the most frequent
        by_class[Counter(indices).most_common(1)[0][0]].append(group)
    wanted = {"train": 1 - sum(fractions.values()), "test": 0.0, "val": 0.0} | fractions
    wanted = {split: share for split, share in wanted.items() if share > 0}
    split_of, notes = {}, []
    for index, name in enumerate(classes):
        groups = by_class[index]
        order = sample_rng(seed, Stream.SPLIT, index).permutation(len(groups))
        total = sum(len(members[group]) for group in groups)
        missing = {split: share * total for split, share in wanted.items()}
        first = list(wanted)  # one group each, so that no split goes without the class
        for position in order:
            split = first.pop(0) if first else max(missing, key=missing.__getitem__)
            split_of[groups[position]] = split
            missing[split] -= len(members[groups[position]])
        if first:
            notes.append(
                f"class {name!r} has {len(groups)} patients or blocks: none is left for "
                f"{' and '.join(first)}; add patients for results that mean something"
            )
    return [dataclasses.replace(item, split=split_of[item.group]) for item in items], notes


def _take_from_train(
    items: list[Item], classes: Sequence[str], split: str, fraction: float, config: DataConfig
) -> tuple[list[Item], list[str]]:
    """Moves training groups into a split that the official lists left empty."""
    train = [item for item in items if item.split == "train"]
    drawn, notes = _draw(train, classes, {split: fraction}, config.split_seed)
    moved = {item.group for item in drawn if item.split == split}
    note = f"no image of the official {split} list was found: {len(moved)} training patients taken"
    kept = [dataclasses.replace(i, split=split) if i.group in moved else i for i in items]
    return kept, [note, *notes]
