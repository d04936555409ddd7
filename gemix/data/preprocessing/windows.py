"""CT windows: map Hounsfield units to grey."""

from __future__ import annotations

import re

import numpy as np

WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (-500.0, 1400.0),
    "mediastinal": (40.0, 400.0),
    "bone": (400.0, 1800.0),
}
"""Level and width, in HU, by name."""

_LEVEL_AND_WIDTH = re.compile(r"(-?\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)")


def parse_window(text: str) -> tuple[float, float] | None:
    """Return level and width in HU of a name in `WINDOWS` or of text such as ``-600/1500``.

    None for any other text, and for a width below 1.
    """
    if text in WINDOWS:
        return WINDOWS[text]
    match = _LEVEL_AND_WIDTH.fullmatch(text)
    if match is None or float(match[2]) < 1:
        return None
    return float(match[1]), float(match[2])


def apply_window(hounsfield: np.ndarray, level: float, width: float) -> np.ndarray:
    """Map Hounsfield units to uint8: `level` - `width`/2 to 0, `level` + `width`/2 to 255."""
    fraction = (hounsfield - (level - width / 2)) / width
    return np.rint(np.clip(fraction, 0, 1) * 255).astype(np.uint8)
