"""A scan as a source returns it, and the exceptions for scans that are not used."""

from __future__ import annotations

import dataclasses

import numpy as np

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are exclusive."""

LOWEST_HU, HIGHEST_HU = -1024.0, 3071.0
"""The 12-bit range of a CT scanner in Hounsfield units; the lowest value stands for air."""


class InvalidImageError(Exception):
    """A file that cannot be used; the text is the reason that the quarantine list shows."""


class ScanFiltered(Exception):
    """A good scan that a rule leaves out; the text is the rule's name, under which it counts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scan:
    """One axial slice.

    Attributes:
        pixels: [H, W] square pixels; float32 Hounsfield units or uint8 grey.
        is_hounsfield: whether the pixels are Hounsfield units.
        box: the part to keep, as a list file gives it; None to detect the body.
    """

    pixels: np.ndarray
    is_hounsfield: bool
    box: Box | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A file that was set aside, and the reason."""

    source: str
    reason: str
