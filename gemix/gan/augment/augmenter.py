"""Adaptive discriminator augmentation: what is done to images before the discriminator.

Karras et al., "Training generative adversarial networks with limited data", 2020, appendix B.
Every transformation is applied with probability p and drawn from the sample's own random numbers.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import torch
from torch import Tensor

from gemix.core.rng import Stream
from gemix.core.torch_rng import draw
from gemix.gan.augment.augment_set import AugmentSet, Draws
from gemix.gan.augment.color import colour_transform, recolour
from gemix.gan.augment.geometry import rotate, scale, translate, warp


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


@dataclasses.dataclass(frozen=True)
class Augmenter:
    """Augments the images of a worker.

    Attributes:
        strength: of each transformation.
        seed: of the training.
        positions: of the N images in the global batch, int64 [N].
    """

    strength: AugmentSet
    seed: int
    positions: Tensor

    def __call__(self, images: Tensor, stream: Stream, step: Tensor, p: Tensor | None) -> Tensor:
        """Images [N, C, H, W], augmented as is drawn for this step of the stream.

        `p` is the probability of each transformation, 0 to 1, float64 [1]; None leaves the images
        as they are.
        """
        if p is None:
            return images
        return apply_augmentation(images, self.draw(stream, step, p, images.shape[-1]))

    def draw(self, stream: Stream, step: Tensor, p: Tensor, side: int) -> Augmentation:
        """Draws what is done to images of `side` x `side` pixels."""
        uniform, normal = draw(
            self.seed, stream, self.positions, step, uniforms=_UNIFORMS, normals=_NORMALS
        )
        gate, value = uniform.chunk(2, dim=1)
        draws = Draws(p=p, gate=gate < p, uniform=value, normal=normal.double())
        moves, recolours = self.strength.moves, self.strength.recolours
        return Augmentation(
            geometric_transform(self.strength, draws, side) if moves else None,
            colour_transform(self.strength, draws) if recolours else None,
        )


def apply_augmentation(images: Tensor, augmentation: Augmentation) -> Tensor:
    """Augments a batch; differentiable, twice, in the images.

    Args:
        images: [N, C, H, W] with H = W, about -1 to 1; C is 1 or 3.
        augmentation: of the N images.

    Returns:
        Images of the same shape.
    """
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


def geometric_transform(strength: AugmentSet, draws: Draws, side: int) -> Tensor:
    """The map from source to augmented coordinates, in units of half the image: [N, 3, 3].

    Args:
        side: of the images, in pixels; `xint` moves by whole ones.
    """
    u, n, s = draws.uniform, draws.normal, strength
    transform = torch.eye(3, dtype=u.dtype, device=u.device).expand(len(u), 3, 3)
    if s.xflip:
        flip = draws.chosen(0, torch.where(u[:, 0] < 0.5, -1.0, 1.0).to(u), 1.0)
        transform = scale(flip, torch.ones_like(flip)) @ transform
    if s.rotate90:
        transform = rotate(draws.chosen(1, torch.floor(u[:, 1] * 4) * (math.pi / 2))) @ transform
    if s.xint:
        pixels = (torch.round((2 * u[:, i] - 1) * (s.xint * side)) for i in (2, 3))
        x, y = (draws.chosen(2, moved * (2 / side)) for moved in pixels)
        transform = translate(x, y) @ transform
    if s.scale:
        zoom = draws.chosen(3, torch.exp2(n[:, 0] * s.scale), 1.0)
        transform = scale(zoom, zoom) @ transform
    # two rotations around the anisotropic scaling, of joint probability p
    rotates = 1 - torch.sqrt(1 - draws.p)
    if s.rotate:
        angle = torch.where(u[:, 4] < rotates, (2 * u[:, 5] - 1) * s.rotate * math.pi, 0.0)
        transform = rotate(angle) @ transform
    if s.aniso:
        stretch = draws.chosen(4, torch.exp2(n[:, 1] * s.aniso), 1.0)
        transform = scale(stretch, 1 / stretch) @ transform
    if s.rotate:
        angle = torch.where(u[:, 6] < rotates, (2 * u[:, 7] - 1) * s.rotate * math.pi, 0.0)
        transform = rotate(angle) @ transform
    if s.xfrac:
        x, y = (draws.chosen(5, n[:, i] * (2 * s.xfrac)) for i in (2, 3))
        transform = translate(x, y) @ transform
    return transform
