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
_LEAST_AIR = 0.001  # of the values; lungs and the air around the patient are a tenth or more


def has_air(values: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> bool:
    """Return whether enough of the values are air.

    Args:
        values: of any shape; ``slope * values + intercept`` are HU.
        slope: not 0.
        intercept: in HU.
    """
    # HU to stored values, which saves a copy of the volume
    low, high = sorted((hounsfield - intercept) / slope for hounsfield in _AIR_HU)
    air = np.count_nonzero((values >= low) & (values <= high))
    return air > 0 and air >= _LEAST_AIR * values.size
