"""The interface of a source of scans."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

from gemix.data.map_fn import MapFn, serial_map
from gemix.data.scan import Quarantined, Scan
from gemix.data.sources.scan_refs import ScanRef, ScanRefs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """The contents of a source.

    Attributes:
        classes: two or more class names, each of some items.
        items: in natural order, class by class: neighbours may be slices of one patient.
        listed: number of scans that there should be; more than the items where some are missing.
        notes: plain sentences about what was found, missing or left out.
        unusable: files that cannot even be listed.
        unusable_of_class: number of these files by class name, as far as the class is known.
        group_kind: what the items' groups stand for, in a word: "patients", "volumes".
    """

    classes: tuple[str, ...]
    items: ScanRefs
    listed: int
    notes: tuple[str, ...] = ()
    unusable: tuple[Quarantined, ...] = ()
    unusable_of_class: Mapping[str, int] = dataclasses.field(default_factory=dict)
    group_kind: str = "patients"


class Source(Protocol):
    """A place with labelled scans: picklable, and cheap to open.

    Register an implementation in :data:`gemix.data.sources.registry.SOURCES`, and test it with
    :class:`gemix.data.testing.SourceContract`.
    """

    def list(self, map_fn: MapFn = serial_map) -> Listing:
        """Find the scans without decoding them, in the same order every time.

        Args:
            map_fn: reads headers, in sources that must.

        Raises:
            DataError: if there is nothing to learn from, with the remedy.
        """

    def load(self, item: ScanRef) -> Scan:
        """Read one scan.

        Raises:
            InvalidImageError: with the reason if it cannot be used.
            ScanFiltered: if a rule leaves it out.
            DataError: if a file that holds many scans is gone.
        """
