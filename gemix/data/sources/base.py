"""What every source of scans offers."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from gemix.data.map_fn import MapFn, here
from gemix.data.scan import Quarantined, Scan
from gemix.data.sources.scan_refs import ScanRef, ScanRefs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """All that a source holds.

    Attributes:
        classes: two or more class names, none without an item.
        items: in natural order, class by class: neighbours may be slices of one patient.
        listed: how many scans there should be; more than the items where some are missing.
        notes: plain sentences about what was found, missing or left out.
        unusable: files that are no items, because not even listing could make sense of them.
        groups_are: what the items' groups stand for, in a word: "patients", "volumes".
    """

    classes: tuple[str, ...]
    items: ScanRefs
    listed: int
    notes: tuple[str, ...] = ()
    unusable: tuple[Quarantined, ...] = ()
    groups_are: str = "patients"


class Source(Protocol):
    """A place with labelled scans."""

    def list(self, spread: MapFn = here) -> Listing:
        """Finds the scans without decoding them; the same order every time.

        Args:
            spread: what reads headers, in sources that must.

        Raises:
            DataError: if there is nothing to learn from, with the remedy.
        """

    def load(self, item: ScanRef) -> Scan:
        """Reads one scan.

        Raises:
            InvalidImageError: with the reason if it cannot be used.
            ScanFiltered: if a rule leaves it out.
        """
