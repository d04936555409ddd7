"""Operations on grey levels that RandAugment and AugMix choose from, by torchvision.

Of the operations of the two papers these make a CT slice of a CT slice: grey has no colour to vary,
solarizing and posterizing show no tissue, and the contrast of grey levels between the darkest and
the brightest is stretched already.

Each takes grey levels from 0 to 1, float32 [C, H, W], and a strength from -1 to 1 whose sign is the
direction, and returns as many grey levels. What comes in over the border is 0, air.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

MAX_TURN = 30.0  # degrees
MAX_SHEAR = 0.3  # tangent of the angle
MAX_SHIFT = 1 / 3  # of the image's side
MAX_CHANGE = 0.9  # of the factors of brightness, contrast and sharpness, from 1


def rotate(image: Tensor, strength: float) -> Tensor:
    """Turn the image about its middle."""
    return _affine(image, turn=MAX_TURN * strength)


def shear_x(image: Tensor, strength: float) -> Tensor:
    """Shift rows in proportion to their distance from the middle one."""
    return _affine(image, shear=(_shear_degrees(strength), 0.0))


def shear_y(image: Tensor, strength: float) -> Tensor:
    """Shift columns in proportion to their distance from the middle one."""
    return _affine(image, shear=(0.0, _shear_degrees(strength)))


def translate_x(image: Tensor, strength: float) -> Tensor:
    """Shift the image to the right."""
    return _affine(image, shift=(MAX_SHIFT * strength * image.shape[-1], 0.0))


def translate_y(image: Tensor, strength: float) -> Tensor:
    """Shift the image down."""
    return _affine(image, shift=(0.0, MAX_SHIFT * strength * image.shape[-2]))


def brightness(image: Tensor, strength: float) -> Tensor:
    """Scale the grey levels."""
    return F.adjust_brightness(image, 1 + MAX_CHANGE * strength)


def contrast(image: Tensor, strength: float) -> Tensor:
    """Scale the differences from the mean grey."""
    return F.adjust_contrast(image, 1 + MAX_CHANGE * strength)


def sharpness(image: Tensor, strength: float) -> Tensor:
    """Scale the differences from a smoothed image."""
    return F.adjust_sharpness(image, 1 + MAX_CHANGE * strength)


def equalize(image: Tensor, strength: float) -> Tensor:
    """Equalize the histogram of grey levels; the strength has no meaning."""
    return F.equalize(image)


OPERATIONS: tuple[Callable[[Tensor, float], Tensor], ...] = (
    rotate,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    brightness,
    contrast,
    sharpness,
    equalize,
)


def _affine(
    image: Tensor,
    *,
    turn: float = 0.0,
    shift: Sequence[float] = (0.0, 0.0),
    shear: Sequence[float] = (0.0, 0.0),
) -> Tensor:
    return F.affine(
        image,
        angle=turn,
        translate=list(shift),
        scale=1.0,
        shear=list(shear),
        interpolation=InterpolationMode.BILINEAR,
    )


def _shear_degrees(strength: float) -> float:
    return math.degrees(math.atan(MAX_SHEAR * strength))
