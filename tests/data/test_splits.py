from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gemix.data.config import DataConfig
from gemix.data.prepare.splits import TEST, TRAIN, VAL, assign
from gemix.data.shards.manifest import SPLITS

CONFIG = DataConfig(val_fraction=0.15, test_fraction=0.2)
CLASSES = ("a", "b", "c")


@dataclasses.dataclass
class Scans:
    """Images of patients, each with a class and maybe an official split."""

    names: list[str]
    group: np.ndarray
    label: np.ndarray
    official: np.ndarray

    def assign(self, config=CONFIG):
        return assign(self.group, self.names, self.label, self.official, CLASSES, config)

    def split_of(self, config=CONFIG) -> dict[str, str]:
        """The split of each patient, if all images of each are in one."""
        split = self.assign(config).split
        found = {
            (self.names[group], SPLITS[one]) for group, one in zip(self.group, split, strict=True)
        }
        assert len(found) == len(set(self.group.tolist()))
        return dict(found)


def patients(rng, per_class, official=(-1,)) -> Scans:
    """Patients of each class with one to nine slices."""
    names = [f"{c}-{p}" for c in range(3) for p in range(per_class)]
    slices = rng.integers(1, 10, len(names))
    listed = np.array(official)[np.arange(len(names)) % per_class % len(official)]
    return Scans(
        names=names,
        group=np.repeat(np.arange(len(names)), slices),
        label=np.repeat(np.repeat(np.arange(3), per_class), slices),
        official=np.repeat(listed, slices).astype(np.int8),
    )


def without(scans: Scans, wanted) -> Scans:
    return Scans(scans.names, scans.group[wanted], scans.label[wanted], scans.official[wanted])


@pytest.mark.parametrize("seed", range(20))
def test_no_patient_is_on_two_sides_and_every_class_on_all(seed):
    rng = np.random.default_rng(seed)
    scans = patients(rng, int(rng.integers(3, 40)))
    config = DataConfig(
        val_fraction=rng.uniform(0.05, 0.3), test_fraction=rng.uniform(0.05, 0.3), split_seed=seed
    )
    split = scans.assign(config).split
    assert len(scans.split_of(config)) == len(scans.names)
    assert set(zip(scans.label.tolist(), split.tolist(), strict=True)) == {
        (c, s) for c in range(3) for s in range(3)
    }


def test_a_patient_of_two_classes_stays_whole():
    scans = patients(np.random.default_rng(0), 8)
    scans.label[0] = 2
    assert len(scans.split_of()) == 24


def test_shares_are_met_on_average():
    scans = patients(np.random.default_rng(0), 2000)
    split = scans.assign().split
    for label in range(3):
        shares = np.bincount(split[scans.label == label]) / (scans.label == label).sum()
        assert shares[VAL] == pytest.approx(0.15, abs=0.03)
        assert shares[TEST] == pytest.approx(0.2, abs=0.03)


def test_a_share_far_from_what_is_wanted_is_told():
    """One patient has most images of class a; wherever it goes, some share is far off."""
    scans = patients(np.random.default_rng(0), 200)
    assert scans.assign().notes == ()
    large = np.flatnonzero(scans.group == 3)
    rows = np.concatenate([np.arange(len(scans.group)), large.repeat(3000)])
    (note, *others) = without(scans, rows).assign().notes
    assert note.startswith("class 'a': ")
    assert "% of its images fell to val, 15% wanted" in note
    assert "data.split_seed" in note
    assert all(one.startswith("class 'a': ") for one in others)


def test_the_seed_decides():
    scans = patients(np.random.default_rng(0), 20)
    assert scans.split_of() == scans.split_of()
    assert scans.split_of() != scans.split_of(DataConfig(split_seed=2))


@pytest.mark.parametrize("seed", range(5))
def test_patients_that_come_or_go_move_no_other(seed):
    scans = patients(np.random.default_rng(seed), 40)
    whole = scans.split_of()
    fewer = without(scans, scans.group % 5 != seed)
    for name, split in fewer.split_of().items():
        assert whole[name] == split


@pytest.mark.parametrize("per_class", [5, 7, 10, 40])
@pytest.mark.parametrize("seed", range(4))
def test_every_patient_is_tested_in_one_fold(per_class, seed):
    scans = patients(np.random.default_rng(seed), per_class)
    folds = [
        scans.split_of(DataConfig(folds=5, fold=fold, val_fraction=0.2, split_seed=seed))
        for fold in range(5)
    ]
    for name in scans.names:
        assert [fold[name] for fold in folds].count("test") == 1
    for fold in folds:
        for label in range(3):
            tested = sum(fold[f"{label}-{p}"] == "test" for p in range(per_class))
            assert tested in (per_class // 5, -(-per_class // 5))


def test_groups_without_images_count_for_nothing():
    scans = patients(np.random.default_rng(0), 12)
    empty = [f"gone-{number}" for number in range(50)]
    more = dataclasses.replace(scans, names=[*scans.names, *empty])
    assert more.split_of() == scans.split_of()
    few = without(scans, (scans.label != 0) | (scans.group < 3))
    for seed in range(8):
        config = DataConfig(split_seed=seed)
        split = dataclasses.replace(few, names=more.names).assign(config).split
        assert set(split[few.label == 0]) == {TRAIN, VAL, TEST}


def test_folds_draw_their_own_splits():
    scans = patients(np.random.default_rng(0), 20, official=(TRAIN, VAL, TEST))
    folded = DataConfig(folds=4, fold=1)
    unlisted = dataclasses.replace(scans, official=np.full_like(scans.official, -1))
    assert scans.split_of(folded) == unlisted.split_of(folded)
    assert any("official splits are not used" in note for note in scans.assign(folded).notes)


def test_official_splits_are_kept():
    scans = patients(np.random.default_rng(0), 9, official=(TRAIN, VAL, TEST))
    np.testing.assert_array_equal(scans.assign().split, scans.official)


def test_images_on_no_list_train_beside_those_that_are():
    scans = patients(np.random.default_rng(0), 12, official=(TRAIN, VAL, TEST, -1))
    expected = np.where(scans.official < 0, TRAIN, scans.official)
    np.testing.assert_array_equal(scans.assign().split, expected)


def test_a_patient_on_two_official_lists_goes_to_one():
    scans = patients(np.random.default_rng(0), 9, official=(TRAIN, VAL, TEST))
    listed_for_test = np.flatnonzero(
        (scans.official == TEST) & (np.bincount(scans.group)[scans.group] > 1)
    )
    row = listed_for_test[0]
    scans.official[row] = TRAIN
    assert scans.split_of()[scans.names[scans.group[row]]] == "test"
    assert any("1 patients were on several" in note for note in scans.assign().notes)


def test_an_official_split_that_is_missing_comes_out_of_training():
    scans = patients(np.random.default_rng(0), 12, official=(TRAIN, TEST))
    split = scans.assign().split
    np.testing.assert_array_equal(split == TEST, scans.official == TEST)
    for label in range(3):
        assert set(split[scans.label == label]) == {TRAIN, VAL, TEST}


def test_lists_without_training_images_are_set_aside():
    scans = patients(np.random.default_rng(0), 9, official=(TEST,))
    assigned = scans.assign()
    assert set(assigned.split) == {TRAIN, VAL, TEST}
    assert any("split by patient instead" in note for note in assigned.notes)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("kept", "expected"), [(1, {TRAIN}), (2, {TRAIN, TEST})])
def test_too_few_patients_go_to_training_first_and_are_noted(kept, expected, seed):
    scans = patients(np.random.default_rng(0), 9)
    scans = without(scans, (scans.label != 1) | (scans.group < 9 + kept))
    assigned = scans.assign(DataConfig(split_seed=seed))
    assert set(assigned.split[scans.label == 1]) == expected
    assert any(f"class 'b' has {kept} patients" in note for note in assigned.notes)
