"""Grad-CAM maps drawn over the images that they explain."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from gemix.core.png import encode_png

STRONGEST = 0.6
"""Opacity of the colour where a map is 1; where it is 0 the image is as it was."""


def overlay(image: np.ndarray, cam: np.ndarray) -> str:
    """Return an image under its map, as the base64 text of an RGB PNG file.

    Args:
        image: uint8 [C, H, W]; the first channel is drawn, in grey.
        cam: float32 [H, W], 0 to 1. The colours are those of inferno, black to yellow.
    """
    colours = cv2.applyColorMap(np.rint(255 * cam).astype(np.uint8), cv2.COLORMAP_INFERNO)
    opacity = STRONGEST * cam[..., None]
    pixels = (1 - opacity) * image[0, ..., None] + opacity * colours[..., ::-1]  # OpenCV has BGR
    return base64.b64encode(encode_png(np.rint(pixels).astype(np.uint8))).decode()
