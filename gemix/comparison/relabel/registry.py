"""The relabellings by the name that a method of a comparison may have: one line each.

Entries are references that are resolved on first use.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemix.comparison.relabel.base import Relabelling

_PACKAGE = "gemix.comparison.relabel"

RELABELLINGS: dict[str, str] = {
    "asked": f"{_PACKAGE}.asked:asked",
    "hard": f"{_PACKAGE}.hard:hard",
    "smoothed": f"{_PACKAGE}.smoothed:smoothed",
}


def load_relabelling(name: str) -> Relabelling:
    """Return the relabelling of a registered name."""
    return pkgutil.resolve_name(RELABELLINGS[name])
