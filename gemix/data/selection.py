"""Which of the slices that a source lists are used."""

from __future__ import annotations

import dataclasses
from collections import Counter

from gemix.data.sources import Listing


def every_kth(listing: Listing, step: int) -> Listing:
    """The first of every `step` slices of each patient and class, in the listing's order.

    Where patients are not known, of each class. Neighbouring slices are nearly one image: leaving
    some out costs little and makes a set of many patients smaller.
    """
    if step == 1:
        return listing
    seen: Counter[tuple[int, str | None]] = Counter()
    kept = []
    for item in listing.items:
        run = item.class_index, item.group
        if seen[run] % step == 0:
            kept.append(item)
        seen[run] += 1
    note = f"data.slice_step={step}: {len(kept)} of {len(listing.items)} slices are used"
    return dataclasses.replace(listing, items=tuple(kept), notes=(*listing.notes, note))
