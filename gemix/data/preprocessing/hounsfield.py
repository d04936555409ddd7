"""Check that values are Hounsfield units (HU): a CT scan of a chest holds air.

Files claim to hold HU when they hold greys of a screen, values from 0 to 1, HU + 1024 or a
segmentation. None of these reaches the HU of lung or of the air around the patient.
"""

from __future__ import annotations

import numpy as np

NO_AIR = (
    "no air (nothing from -1100 to -500 HU), so its values are not Hounsfield units; restore the "
    "rescaling (DICOM RescaleIntercept, NIfTI scl_inter) or remove it"
)

_AIR_HU = (-1100.0, -500.0)  # padding lies below, at -2000 or -3024
_MIN_AIR = 0.001  # of the pixels; lungs and the air around the patient are a tenth or more
_MAX_SLICES = 64  # evenly spread, are enough of a volume


def has_air(
    slices: np.ndarray,
    slope: float = 1.0,
    intercept: float = 0.0,
    ignore: np.ndarray | None = None,
) -> bool:
    """Return whether enough pixels within the circular field of view are air.

    The corners around it do not count: they are padding, which may have any value.

    Args:
        slices: [H, W] or [S, H, W]; ``slope * slices + intercept`` are HU.
        slope: not 0.
        intercept: in HU.
        ignore: bool [H, W], other pixels that do not count.
    """
    # HU to stored values, which saves a copy of the volume
    low, high = sorted((hounsfield - intercept) / slope for hounsfield in _AIR_HU)
    counted = inscribed_ellipse(slices.shape[-2:])
    if ignore is not None:
        counted &= ~ignore
    stack = slices.reshape(-1, *slices.shape[-2:])
    step = -(-len(stack) // _MAX_SLICES)
    sample = stack[step // 2 :: step]
    air = sum(np.count_nonzero((one >= low) & (one <= high) & counted) for one in sample)
    return air > 0 and air >= _MIN_AIR * np.count_nonzero(counted) * len(sample)


def inscribed_ellipse(shape: tuple[int, ...]) -> np.ndarray:
    """Return the ellipse that touches all sides of a frame: bool [H, W]."""
    down, across = (np.linspace(-1, 1, side) for side in shape)
    return down[:, None] ** 2 + across**2 <= 1
