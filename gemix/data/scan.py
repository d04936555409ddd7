"""A scan as it comes from a source, and what is wrong with one that cannot be used."""

from __future__ import annotations

import dataclasses

import numpy as np

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are exclusive."""

LOWEST_HU, HIGHEST_HU = -1024.0, 3071.0
"""What the 12 bits of a CT scanner hold, in Hounsfield units; the lowest stands for air."""


class InvalidImageError(Exception):
    """One file that cannot be used; its text is the reason, which the quarantine list shows."""


class ScanFiltered(Exception):
    """A scan that a rule leaves out; its text names the rule, which counts are kept by."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scan:
    """One axial slice.

    Attributes:
        pixels: [H, W]; float32 Hounsfield units, or uint8 grey.
        is_hounsfield: which of the two.
        box: the part to keep, as a list file gives it; None where the body is to be found.
    """

    pixels: np.ndarray
    is_hounsfield: bool
    box: Box | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A file that was set aside, and why."""

    source: str
    reason: str
