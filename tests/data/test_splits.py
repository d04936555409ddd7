from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest

from gemix.data.config import DataConfig
from gemix.data.sources.base import Item, Listing
from gemix.data.splits import assign
from gemix.errors import DataError

CONFIG = DataConfig(val_fraction=0.15, test_fraction=0.2)


def listing_of(items, classes=("a", "b", "c")):
    return Listing(classes=classes, items=tuple(items), listed=len(items))


def patients(rng, per_class, classes=3, official=None):
    """Items of patients with one to nine slices each."""
    return [
        Item(
            key=f"{c}/{p}/{s}",
            class_index=c,
            group=f"{c}-{p}",
            split=official[p % len(official)] if official else None,
        )
        for c in range(classes)
        for p in range(per_class)
        for s in range(rng.integers(1, 10))
    ]


def splits_by_group(items):
    found = defaultdict(set)
    for item in items:
        found[item.group].add(item.split)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_no_patient_is_on_two_sides_and_every_class_on_all(seed):
    rng = np.random.default_rng(seed)
    items = patients(rng, int(rng.integers(3, 40)))
    config = DataConfig(
        val_fraction=rng.uniform(0.05, 0.3), test_fraction=rng.uniform(0.05, 0.3), split_seed=seed
    )
    assigned = assign(listing_of(items), config).items
    assert all(len(splits) == 1 for splits in splits_by_group(assigned).values())
    assert {(i.class_index, i.split) for i in assigned} == {
        (c, s) for c in range(3) for s in ("train", "val", "test")
    }
    assert [item.key for item in assigned] == [item.key for item in items]


def test_a_patient_of_two_classes_stays_whole():
    items = patients(np.random.default_rng(0), 8)
    items.append(Item(key="odd", class_index=2, group="0-0"))
    assigned = assign(listing_of(items), CONFIG).items
    assert all(len(splits) == 1 for splits in splits_by_group(assigned).values())


def test_shares_are_met():
    assigned = assign(listing_of(patients(np.random.default_rng(0), 100)), CONFIG).items
    for index in range(3):
        counts = Counter(item.split for item in assigned if item.class_index == index)
        total = counts.total()
        assert counts["val"] / total == pytest.approx(0.15, abs=0.03)
        assert counts["test"] / total == pytest.approx(0.2, abs=0.03)


def test_the_seed_decides():
    listing = listing_of(patients(np.random.default_rng(0), 20))
    config = DataConfig(split_seed=1)
    assert assign(listing, config) == assign(listing, config)
    assert assign(listing, config) != assign(listing, DataConfig(split_seed=2))


@pytest.mark.parametrize("count", [3, 10, 96, 448])
def test_without_patients_neighbours_stay_together(count):
    items = [Item(key=f"{c}/{i}", class_index=c) for c in range(2) for i in range(count)]
    assigned = assign(listing_of(items, ("a", "b")), CONFIG)
    assert any("patients are not known" in note for note in assigned.notes)
    for index in range(2):
        mine = [item for item in assigned.items if item.class_index == index]
        blocks = [item.group for item in mine]
        # each block is one run of the file order
        assert len(set(blocks)) == 1 + sum(x != y for x, y in itertools.pairwise(blocks))
        splits = [item.split for item in mine]
        assert set(splits) == {"train", "val", "test"}
        if count >= 96:
            assert min(Counter(blocks).values()) >= 4
            assert len({i.group for i in mine if i.split == "val"}) >= 2
            assert sum(x != y for x, y in itertools.pairwise(splits)) <= 15


def test_official_splits_are_kept():
    items = patients(np.random.default_rng(0), 9, official=("train", "val", "test"))
    assigned = assign(listing_of(items), CONFIG)
    assert [item.split for item in assigned.items] == [item.split for item in items]


def test_a_patient_on_two_official_lists_goes_to_one():
    items = patients(np.random.default_rng(0), 9, official=("train", "val", "test"))
    items.append(Item(key="leak", class_index=0, group="0-2", split="train"))
    assigned = assign(listing_of(items), CONFIG)
    assert splits_by_group(assigned.items)["0-2"] == {"test"}
    assert any("1 patients were on several" in note for note in assigned.notes)


def test_an_official_split_that_is_missing_comes_out_of_training():
    items = patients(np.random.default_rng(0), 12, official=("train", "test"))
    assigned = assign(listing_of(items), CONFIG)
    was_test = {item.key for item in items if item.split == "test"}
    assert {item.key for item in assigned.items if item.split == "test"} == was_test
    for index in range(3):
        mine = {item.split for item in assigned.items if item.class_index == index}
        assert mine == {"train", "val", "test"}


def test_lists_without_training_images_are_set_aside():
    items = patients(np.random.default_rng(0), 9, official=("test",))
    assigned = assign(listing_of(items), CONFIG)
    assert {item.split for item in assigned.items} == {"train", "val", "test"}
    assert any("split by patient instead" in note for note in assigned.notes)


def test_too_few_patients_go_to_training_first_and_are_noted():
    items = patients(np.random.default_rng(0), 9)
    items = [item for item in items if item.class_index != 1]
    items += [Item(key=f"x{i}", class_index=1, group="only") for i in range(5)]
    assigned = assign(listing_of(items), CONFIG)
    assert {i.split for i in assigned.items if i.class_index == 1} == {"train"}
    assert any("class 'b' has 1 patients" in note for note in assigned.notes)


def test_fewer_images_than_splits_are_refused():
    items = [Item(key=f"{c}/{i}", class_index=c) for c in range(2) for i in range(5 - 3 * c)]
    with pytest.raises(DataError, match=r"class 'b': 2 images.*3 parts.*data\.val_fraction"):
        assign(listing_of(items, ("a", "b")), CONFIG)
    no_val = DataConfig(val_fraction=0, test_fraction=0.3)
    assigned = assign(listing_of(items, ("a", "b")), no_val).items
    assert {item.split for item in assigned} == {"train", "test"}
