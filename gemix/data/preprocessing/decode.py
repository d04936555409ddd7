"""Decode image files to 8-bit grey pixels."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from gemix.data.scan import InvalidImageError, ScanFiltered

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
MAX_SIDE = 8192
MIN_SIDE = 16

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_PNG_BIT_DEPTH = 24  # offset of the bit depth in a PNG file (PNG specification, IHDR)
_COLOUR_TOLERANCE = 4  # JPEG's rounding of a grey image stored as colour stays below


def decode_image(data: bytes) -> np.ndarray:
    """Decode a PNG, JPEG, BMP or TIFF file.

    Colour files of equal channels are accepted as grey. Sizes are checked before pixels are
    decoded.

    Returns:
        uint8 [H, W].

    Raises:
        InvalidImageError: for an empty, truncated or damaged file, another format, more than 8
            bits a pixel, true colour, several frames, or a side outside `MIN_SIDE` to `MAX_SIDE`.
        ScanFiltered: "mask" for 1 bit a pixel: a segmentation mask.
    """
    if not data:
        raise InvalidImageError("empty file (0 bytes); copy it again")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_header(image, data)
            image.load()
            return _to_grey(_upright(image))
    except (InvalidImageError, ScanFiltered):
        raise
    except UnidentifiedImageError:
        raise InvalidImageError(
            "no PNG, JPEG, BMP or TIFF image, or its header is damaged; copy it again"
        ) from None
    except Image.DecompressionBombError as error:
        raise InvalidImageError(f"larger than {MAX_SIDE} x {MAX_SIDE} pixels ({error})") from None
    except Exception as error:  # of nearly any type, as from a TIFF file without a size
        raise InvalidImageError(f"truncated or damaged ({error}); copy it again") from None


def check_size(width: int, height: int) -> None:
    """Raise InvalidImageError for a side outside `MIN_SIDE` to `MAX_SIDE`, in pixels."""
    if max(width, height) > MAX_SIDE or min(width, height) < MIN_SIDE:
        raise InvalidImageError(
            f"{width} x {height} pixels; sides from {MIN_SIDE} to {MAX_SIDE} pixels are read"
        )


def _check_header(image: Image.Image, data: bytes) -> None:
    check_size(*image.size)
    if getattr(image, "n_frames", 1) > 1:
        raise InvalidImageError(f"{image.n_frames} frames in one file; save one slice a file")
    # Pillow reads 16-bit colour PNG as 8-bit without a warning; the header tells
    deep = image.format == "PNG" and data[_PNG_BIT_DEPTH] == 16
    if deep or image.mode.startswith("I") or image.mode == "F":
        raise InvalidImageError(
            f"more than 8 bits a pixel (mode {image.mode}{', 16-bit' if deep else ''}); apply a "
            "CT window and save it as 8-bit grey"
        )
    if image.mode == "1":
        raise ScanFiltered("mask")


def _upright(image: Image.Image) -> Image.Image:
    """Turn the image as its EXIF orientation says, as viewers do."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # of nearly any type; viewers show an image with damaged EXIF as it is
        return image


def _to_grey(image: Image.Image) -> np.ndarray:
    if image.mode == "L":
        return np.asarray(image)
    if image.mode not in ("LA", "P", "PA", "RGB", "RGBA", "YCbCr"):
        raise InvalidImageError(f"colour mode {image.mode}; save it as 8-bit grey")
    if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
        raise InvalidImageError(
            "transparent pixels; save it as 8-bit grey without an alpha channel"
        )
    red, green, blue = image.convert("RGB").split()
    pairs = ((red, green), (green, blue), (blue, red))
    spread = max(ImageChops.difference(*pair).getextrema()[1] for pair in pairs)
    if spread > _COLOUR_TOLERANCE:
        raise InvalidImageError(
            f"a colour image (its channels differ by up to {spread}); save it as 8-bit grey"
        )
    return np.asarray(green)
