"""Selection of every n-th slice."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from gemix.data.sources import Listing


def every_kth(listing: Listing, step: int) -> Listing:
    """Select the first of every `step` slices of each patient and class, in the listing's order.

    Where patients are not known, of each class. Neighbouring slices are nearly one image: leaving
    some out costs little and makes a set of many patients smaller.
    """
    if step == 1:
        return listing
    counts: Counter[tuple[int, str | None]] = Counter()
    kept = np.zeros(len(listing.items), bool)
    for row, item in enumerate(listing.items):
        run = item.class_index, item.group
        kept[row] = counts[run] % step == 0
        counts[run] += 1
    note = f"data.slice_step={step}: {kept.sum()} of {len(kept)} slices are used"
    return dataclasses.replace(
        listing, items=listing.items.take(kept), notes=(*listing.notes, note)
    )
