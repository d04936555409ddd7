"""Comparing what two sources list."""

from __future__ import annotations

import dataclasses

from gemix.data.sources import Listing, ScanRefs


def undated(listing: Listing) -> Listing:
    """The listing without the stamps of its files, which copies of them do not share."""
    items = (dataclasses.replace(item, stamp=None) for item in listing.items)
    return dataclasses.replace(listing, items=ScanRefs.of(items))
