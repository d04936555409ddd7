"""Adaptive discriminator augmentation: what is done to images before the discriminator.

Karras et al., "Training generative adversarial networks with limited data", 2020, appendix B.
Every transformation is applied with probability p and drawn from the sample's own random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gemix.gan.augment_set import AugmentSet, Draws
from gemix.gan.colour import colour_transform, recolour
from gemix.gan.geometry import identity, rotate, scale, translate, warp
from gemix.randomness import Stream, sample_rng


class Augmentation(NamedTuple):
    """What is done to each image of a batch; None where the set has nothing of the kind.

    Attributes:
        transform: from source to augmented coordinates, float64 [N, 3, 3].
        colour: of RGB values, float64 [N, 4, 4].
    """

    transform: Tensor | None
    colour: Tensor | None


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
    """Augments a batch: :func:`draw_augmentation`, then :func:`apply_augmentation`."""
    drawn = draw_augmentation(
        strength, p, seed=seed, stream=stream, indices=indices, step=step, device=images.device
    )
    return apply_augmentation(images, drawn)


def draw_augmentation(
    strength: AugmentSet,
    p: float,
    *,
    seed: int,
    stream: Stream,
    indices: Sequence[int],
    step: int,
    device: torch.device,
) -> Augmentation | None:
    """Draws what is done to the samples of a batch; None if nothing is.

    Args:
        p: probability of each transformation, 0 to 1.
        indices: the N samples' positions in the global batch.
    """
    if p == 0 or strength == AugmentSet():
        return None
    rngs = [sample_rng(seed, stream, index, step) for index in indices]
    gate, value = np.split(np.stack([rng.random(_UNIFORMS) for rng in rngs]), 2, axis=1)
    draws = Draws(
        gate=gate < p,
        uniform=value,
        normal=np.stack([rng.standard_normal(_NORMALS) for rng in rngs]),
    )
    transform = colour = None
    if strength.moves:
        transform = torch.from_numpy(geometric_transform(strength, draws, p)).to(device)
    if strength.recolours:
        colour = torch.from_numpy(colour_transform(strength, draws)).to(device)
    return Augmentation(transform, colour)


def apply_augmentation(images: Tensor, augmentation: Augmentation | None) -> Tensor:
    """Augments a batch; differentiable, twice, in the images.

    Args:
        images: [N, C, H, W] with H = W, about -1 to 1; C is 1 or 3.
        augmentation: of the N images; None returns them as they are.

    Returns:
        Images of the same shape.
    """
    if augmentation is None:
        return images
    if augmentation.transform is not None:
        images = _move(images, augmentation.transform)
    if augmentation.colour is not None:
        images = recolour(images, augmentation.colour.to(images.dtype))
    return images


def _move(images: Tensor, transform: Tensor) -> Tensor:
    """Warps the images whose transform is not the identity; the others stay to the bit."""
    eye = torch.eye(3, dtype=transform.dtype, device=transform.device)
    moved = (transform != eye).flatten(1).any(dim=1)
    if torch.compiler.is_compiling():  # a graph's shapes do not depend on what was drawn
        return torch.where(moved[:, None, None, None], warp(images, transform), images)
    # at a small p most samples stay as they are, and warping is the costly part
    rows = moved.nonzero()[:, 0]
    return images.index_copy(0, rows, warp(images[rows], transform[rows])) if len(rows) else images


def geometric_transform(strength: AugmentSet, draws: Draws, p: float) -> np.ndarray:
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
