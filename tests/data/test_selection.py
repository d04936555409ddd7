from __future__ import annotations

from gemix.data.prepare.selection import every_kth
from gemix.data.sources import Listing, ScanRef, ScanRefs


def listing(*runs):
    items = [
        ScanRef(key=f"{c}/{g}/{i}", class_index=c, group=g) for c, g, n in runs for i in range(n)
    ]
    return Listing(
        classes=("a", "b"), items=ScanRefs.of(items), listed=len(items), notes=("found",)
    )


def test_every_third_slice_of_each_patient_is_kept():
    chosen = every_kth(listing((0, "p", 7), (0, "q", 1), (1, "p", 4)), 3)
    keys = [item.key for item in chosen.items]
    assert keys == ["0/p/0", "0/p/3", "0/p/6", "0/q/0", "1/p/0", "1/p/3"]
    assert chosen.notes == ("found", "data.slice_step=3: 6 of 12 slices are used")


def test_without_patients_every_third_of_each_class():
    chosen = every_kth(listing((0, None, 4), (1, None, 3)), 3)
    assert [item.key for item in chosen.items] == ["0/None/0", "0/None/3", "1/None/0"]


def test_a_step_of_one_changes_nothing():
    whole = listing((0, "p", 7))
    assert every_kth(whole, 1) == whole
