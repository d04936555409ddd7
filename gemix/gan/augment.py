"""Adaptive discriminator augmentation: what is done to images before the discriminator.

Karras et al., "Training generative adversarial networks with limited data", 2020, appendix B.
Every transformation is applied with probability p and drawn from the sample's own random numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gemix.gan.geometry import identity, rotate, scale, translate, warp
from gemix.randomness import Stream, sample_rng


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentSet:
    """How strong each transformation is; 0 leaves it out.

    Translations are in image widths, rotations in half turns, `scale`, `aniso`, `contrast` and
    `saturation` are standard deviations of a base-2 logarithm, `brightness` one of the image in
    -1 to 1.
    """

    xflip: float = 0.0
    rotate90: float = 0.0
    xint: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    aniso: float = 0.0
    xfrac: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    lumaflip: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0


_BLIT = {"xflip": 1.0, "rotate90": 1.0, "xint": 0.125}
_GEOMETRY = {"scale": 0.2, "rotate": 1.0, "aniso": 0.2, "xfrac": 0.125}
_COLOUR = {"brightness": 0.2, "contrast": 0.5, "lumaflip": 1.0, "hue": 1.0, "saturation": 1.0}

AUGMENT_SETS: dict[str, AugmentSet] = {
    "none": AugmentSet(),
    "b": AugmentSet(**_BLIT),
    "g": AugmentSet(**_GEOMETRY),
    "c": AugmentSet(**_COLOUR),
    "bg": AugmentSet(**_BLIT, **_GEOMETRY),
    "bgc": AugmentSet(**_BLIT, **_GEOMETRY, **_COLOUR),
    # For axial CT. A flip would move the heart to the right and a quarter turn lay the patient on
    # the side; inverted grey is no density at all. Scanners do shift, tilt a little and scale, and
    # windows do vary a little, so those stay, at strengths seen between scans.
    "ct": AugmentSet(
        xint=0.06, scale=0.1, rotate=0.04, aniso=0.06, xfrac=0.03, brightness=0.08, contrast=0.15
    ),
}

_UNIFORMS, _NORMALS = 24, 8  # random numbers a sample has; part of what a seed means


def augment(
    images: Tensor,
    strength: AugmentSet,
    p: float,
    *,
    seed: int,
    stream: Stream,
    indices: Sequence[int],
    step: int,
) -> Tensor:
    """Augments a batch; differentiable, twice, in the images.

    Args:
        images: [N, C, H, W] with H = W, about -1 to 1; C is 1 or 3.
        p: probability of each transformation, 0 to 1; at 0 the images are returned as they are.
        indices: the N samples' positions in the global batch.

    Returns:
        Images of the same shape.
    """
    if p == 0 or strength == AugmentSet():
        return images
    rngs = [sample_rng(seed, stream, index, step) for index in indices]
    gate, value = np.split(np.stack([rng.random(_UNIFORMS) for rng in rngs]), 2, axis=1)
    draws = _Draws(
        gate=gate < p,
        uniform=value,
        normal=np.stack([rng.standard_normal(_NORMALS) for rng in rngs]),
    )
    transform = geometric_transform(strength, draws, p)
    # at a small p most samples stay as they are, and warping is the costly part
    moved = np.flatnonzero((transform != np.eye(3)).any(axis=(1, 2)))
    if len(moved):
        rows = torch.from_numpy(moved).to(images.device)
        warped = warp(images[rows], torch.from_numpy(transform[moved]).to(images.device))
        images = images.index_copy(0, rows, warped)
    colour = colour_transform(strength, draws)
    if not np.array_equal(colour, np.broadcast_to(np.eye(4), colour.shape)):
        images = _recolour(images, torch.from_numpy(colour).to(images))
    return images


@dataclasses.dataclass(frozen=True)
class _Draws:
    """Random numbers of a batch: which transformations apply, and how much."""

    gate: np.ndarray
    uniform: np.ndarray
    normal: np.ndarray

    def chosen(self, column: int, value: np.ndarray, neutral: float = 0.0) -> np.ndarray:
        """`value` where the transformation of this column applies, else `neutral`."""
        return np.where(self.gate[:, column], value, neutral)


def geometric_transform(strength: AugmentSet, draws: _Draws, p: float) -> np.ndarray:
    """The map from source to augmented coordinates, in units of half the image: [N, 3, 3]."""
    u, n, s = draws.uniform, draws.normal, strength
    transform = identity(len(u))
    if s.xflip:
        flip = draws.chosen(0, np.where(u[:, 0] < 0.5, -1.0, 1.0), 1.0)
        transform = scale(flip, np.ones_like(flip)) @ transform
    if s.rotate90:
        transform = rotate(draws.chosen(1, np.floor(u[:, 1] * 4) * (math.pi / 2))) @ transform
    if s.xint:
        # whole pixels are not enforced: the warp that follows interpolates in any case
        x, y = (draws.chosen(2, (2 * u[:, i] - 1) * (2 * s.xint)) for i in (2, 3))
        transform = translate(x, y) @ transform
    if s.scale:
        zoom = draws.chosen(3, np.exp2(n[:, 0] * s.scale), 1.0)
        transform = scale(zoom, zoom) @ transform
    # two rotations around the anisotropic scaling, of joint probability p
    rotates = 1 - math.sqrt(1 - p)
    if s.rotate:
        angle = np.where(u[:, 4] < rotates, (2 * u[:, 5] - 1) * s.rotate * math.pi, 0.0)
        transform = rotate(angle) @ transform
    if s.aniso:
        stretch = draws.chosen(4, np.exp2(n[:, 1] * s.aniso), 1.0)
        transform = scale(stretch, 1 / stretch) @ transform
    if s.rotate:
        angle = np.where(u[:, 6] < rotates, (2 * u[:, 7] - 1) * s.rotate * math.pi, 0.0)
        transform = rotate(angle) @ transform
    if s.xfrac:
        x, y = (draws.chosen(5, n[:, i] * (2 * s.xfrac)) for i in (2, 3))
        transform = translate(x, y) @ transform
    return transform


def colour_transform(strength: AugmentSet, draws: _Draws) -> np.ndarray:
    """The homogeneous map of RGB values: [N, 4, 4]."""
    u, n, s = draws.uniform, draws.normal, strength
    count = len(u)
    colour = np.tile(np.eye(4), (count, 1, 1))
    luma = np.array([1, 1, 1, 0]) / math.sqrt(3)
    along = np.outer(luma, luma)
    if s.brightness:
        shift = np.tile(np.eye(4), (count, 1, 1))
        shift[:, :3, 3] = draws.chosen(6, n[:, 4] * s.brightness)[:, None]
        colour = shift @ colour
    if s.contrast:
        factor = draws.chosen(7, np.exp2(n[:, 5] * s.contrast), 1.0)
        spread = np.tile(np.eye(4), (count, 1, 1))
        spread[:, :3, :3] *= factor[:, None, None]
        colour = spread @ colour
    if s.lumaflip:
        flips = draws.chosen(8, np.floor(u[:, 8] * 2))
        colour = (np.eye(4) - 2 * along * flips[:, None, None]) @ colour
    if s.hue:
        angle = draws.chosen(9, (2 * u[:, 9] - 1) * math.pi * s.hue)
        colour = _rotation_about_luma(angle, luma[:3]) @ colour
    if s.saturation:
        factor = draws.chosen(10, np.exp2(n[:, 6] * s.saturation), 1.0)
        colour = (along + (np.eye(4) - along) * factor[:, None, None]) @ colour
    return colour


def _rotation_about_luma(angle: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Rodrigues' rotation about the grey axis, homogeneous: [N, 4, 4]."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    sin, cos = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    rotation = np.tile(np.eye(4), (len(angle), 1, 1))
    rotation[:, :3, :3] = cos * np.eye(3) + sin * cross + (1 - cos) * np.outer(axis, axis)
    return rotation


def _recolour(images: Tensor, colour: Tensor) -> Tensor:
    matrix, shift = colour[:, :3, :3], colour[:, :3, 3]
    if images.shape[1] == 1:  # grey as RGB of equal channels, averaged again afterwards
        factor = matrix.sum(dim=(1, 2)) / 3
        return images * factor[:, None, None, None] + shift.mean(dim=1)[:, None, None, None]
    flat = matrix @ images.flatten(2) + shift[:, :, None]
    return flat.reshape(images.shape)
