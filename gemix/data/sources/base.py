"""What every source of scans offers."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from gemix.data.scan import Box, Scan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One labelled scan that can be loaded.

    Attributes:
        key: unique in its source; the path below the source's root for files. It is written to
            shards and reports, so a source of files that may name patients makes one up.
        class_index: 0 to K - 1.
        group: the patient, or None where patients are not known.
        split: the split that the source's own lists give it, or None.
        box: the part to keep, or None where the body is to be found.
        location: where `load` finds it, if that is not the key; never written anywhere.
    """

    key: str
    class_index: int
    group: str | None = None
    split: str | None = None
    box: Box | None = None
    location: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """All that a source holds.

    Attributes:
        classes: two or more class names, none without an item.
        items: in natural order, class by class: neighbours may be slices of one patient.
        listed: how many scans there should be; more than the items where some are missing.
        notes: plain sentences about what was found, missing or left out.
    """

    classes: tuple[str, ...]
    items: tuple[Item, ...]
    listed: int
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """A place with labelled scans."""

    def list(self) -> Listing:
        """Finds the scans without decoding them; the same order every time.

        Raises:
            DataError: if there is nothing to learn from, with the remedy.
        """

    def load(self, item: Item) -> Scan:
        """Reads one scan.

        Raises:
            BadImage: with the reason if it cannot be used.
        """
