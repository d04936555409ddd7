"""Grids of images as PNG files."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from gemix.core.errors import DataError


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Arrange images in a grid, row by row.

    Args:
        images: uint8 [N, C, H, W]; N a multiple of `columns`.

    Returns:
        uint8 [N / columns * H, columns * W, C].
    """
    count, channels, height, width = images.shape
    grid = images.reshape(count // columns, columns, channels, height, width)
    return grid.transpose(0, 3, 1, 4, 2).reshape(-1, columns * width, channels)


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode uint8 [H, W, C] as a PNG file: C of 1 is grey, 3 RGB, 2 and 4 with alpha last.

    Raises:
        DataError: for more than 4 channels.
    """
    if pixels.shape[-1] > 4:
        raise DataError(f"images of {pixels.shape[-1]} channels; a PNG file holds at most 4")
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
