"""Augment the images that the discriminator sees.

Karras et al., "Training generative adversarial networks with limited data", 2020, appendix B. Each
transformation applies with probability p; a sample's draws do not depend on the rest of its batch.
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
from gemix.gan.augment.color import apply_color, color_transform
from gemix.gan.augment.geometry import rotate, scale, translate, warp


class ImageTransforms(NamedTuple):
    """Transformations of each image of a batch; None if the set has none of the kind.

    Attributes:
        transform: affine matrices, source to augmented coordinates, float64 [N, 3, 3].
        color: affine matrices of RGB values, float64 [N, 4, 4].
    """

    transform: Tensor | None
    color: Tensor | None


_BLIT = {"xflip": 1.0, "rotate90": 1.0, "xint": 0.125}
_GEOMETRY = {"scale": 0.2, "rotate": 1.0, "aniso": 0.2, "xfrac": 0.125}
_COLOR = {"brightness": 0.2, "contrast": 0.5, "lumaflip": 1.0, "hue": 1.0, "saturation": 1.0}

AUGMENT_SETS: dict[str, AugmentSet] = {
    "none": AugmentSet(),
    "b": AugmentSet(**_BLIT),
    "g": AugmentSet(**_GEOMETRY),
    "c": AugmentSet(**_COLOR),
    "bg": AugmentSet(**_BLIT, **_GEOMETRY),
    "bgc": AugmentSet(**_BLIT, **_GEOMETRY, **_COLOR),
    # For axial CT: no flips (the heart is on the left), no quarter turns (the patient lies on the
    # back), no inverted grey. Shifts, tilts, scales and windows vary as they do between scans.
    "ct": AugmentSet(
        xint=0.06, scale=0.1, rotate=0.04, aniso=0.06, xfrac=0.03, brightness=0.08, contrast=0.15
    ),
}

# Random numbers a sample; another count would change what every seed draws.
_UNIFORMS, _NORMALS = 24, 8


@dataclasses.dataclass(frozen=True)
class Augmenter:
    """Augment the images of a training.

    Attributes:
        strength: of each transformation.
        seed: of the training.
    """

    strength: AugmentSet
    seed: int

    def __call__(
        self, images: Tensor, stream: Stream, step: Tensor, batch_index: Tensor, p: Tensor | None
    ) -> Tensor:
        """Augment images [N, C, H, W] as drawn for this step of the stream.

        Args:
            batch_index: of the images in the global batch, int64 [N].
            p: probability of each transformation, 0 to 1, float64 [1]; None disables all.
        """
        if p is None:
            return images
        transforms = self.draw(stream, step, batch_index, p, images.shape[-1])
        return apply_augmentation(images, transforms)

    def draw(
        self, stream: Stream, step: Tensor, batch_index: Tensor, p: Tensor, side: int
    ) -> ImageTransforms:
        """Draw transformations of images of `side` x `side` pixels."""
        uniform, normal = draw(
            self.seed, stream, batch_index, step, uniforms=_UNIFORMS, normals=_NORMALS
        )
        gates, values = uniform.chunk(2, dim=1)
        draws = Draws(p=p, applied=gates < p, uniform=values, normal=normal.double())
        strength = self.strength
        return ImageTransforms(
            geometric_transform(strength, draws, side) if strength.has_geometric else None,
            color_transform(strength, draws) if strength.has_color else None,
        )


def apply_augmentation(images: Tensor, augmentation: ImageTransforms) -> Tensor:
    """Augment a batch; twice differentiable in the images.

    Args:
        images: [N, C, H, W] with H = W, about -1 to 1; C is 1 or 3.
        augmentation: of the N images.

    Returns:
        Images of the same shape.
    """
    if augmentation.transform is not None:
        images = _warp_changed(images, augmentation.transform)
    if augmentation.color is not None:
        images = apply_color(images, augmentation.color.to(images.dtype))
    return images


def _warp_changed(images: Tensor, transform: Tensor) -> Tensor:
    """Warp the images whose transform is not the identity; leave the others bit-identical."""
    eye = torch.eye(3, dtype=transform.dtype, device=transform.device)
    changed = (transform != eye).flatten(1).any(dim=1)
    if not selects_changed(images):
        return torch.where(changed[:, None, None, None], warp(images, transform), images)
    index = changed.nonzero()[:, 0]
    if not len(index):
        return images
    return images.index_copy(0, index, warp(images[index], transform[index]))


def selects_changed(images: Tensor) -> bool:
    """Return whether only the images that change are warped.

    At a small p most do not, and on a CPU warping is the costly part. Elsewhere all are warped: a
    GPU would wait for the host to learn how many change, and shapes in a compiled graph must not
    depend on the draws.
    """
    return images.device.type == "cpu" and not torch.compiler.is_compiling()


def geometric_transform(strength: AugmentSet, draws: Draws, side: int) -> Tensor:
    """Return affine matrices, source to augmented coordinates of -1 to 1: [N, 3, 3].

    Args:
        side: of the images, in pixels; `xint` translates by whole ones.
    """
    u, n, s = draws.uniform, draws.normal, strength
    transform = torch.eye(3, dtype=u.dtype, device=u.device).expand(len(u), 3, 3)
    if s.xflip:
        flip = draws.gate(0, torch.where(u[:, 0] < 0.5, -1.0, 1.0).to(u), 1.0)
        transform = scale(flip, torch.ones_like(flip)) @ transform
    if s.rotate90:
        transform = rotate(draws.gate(1, torch.floor(u[:, 1] * 4) * (math.pi / 2))) @ transform
    if s.xint:
        pixels = (torch.round((2 * u[:, i] - 1) * (s.xint * side)) for i in (2, 3))
        x, y = (draws.gate(2, shift * (2 / side)) for shift in pixels)
        transform = translate(x, y) @ transform
    if s.scale:
        zoom = draws.gate(3, torch.exp2(n[:, 0] * s.scale), 1.0)
        transform = scale(zoom, zoom) @ transform
    # two rotations around the anisotropic scaling, of joint probability p
    rotates = 1 - torch.sqrt(1 - draws.p)
    if s.rotate:
        angle = torch.where(u[:, 4] < rotates, (2 * u[:, 5] - 1) * s.rotate * math.pi, 0.0)
        transform = rotate(angle) @ transform
    if s.aniso:
        stretch = draws.gate(4, torch.exp2(n[:, 1] * s.aniso), 1.0)
        transform = scale(stretch, 1 / stretch) @ transform
    if s.rotate:
        angle = torch.where(u[:, 6] < rotates, (2 * u[:, 7] - 1) * s.rotate * math.pi, 0.0)
        transform = rotate(angle) @ transform
    if s.xfrac:
        x, y = (draws.gate(5, n[:, i] * (2 * s.xfrac)) for i in (2, 3))
        transform = translate(x, y) @ transform
    return transform
