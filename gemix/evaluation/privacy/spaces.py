"""The spaces in which a privacy audit measures distances between images.

A space gives the *views* of an image: itself, and altered as a copy may be. The distance of an
image to another one is that of its nearest view.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gemix.evaluation.image_quality.features.base import Extractor
from gemix.evaluation.image_quality.nearest_neighbors import distance_blocks

SIDE = 32  # pixels; patients differ in finer detail too, but a GAN's copies do not keep it
_MOVES = tuple(itertools.product((0, -1, 1), repeat=2))


class Space(Protocol):
    """A space of images."""

    name: str

    def views(self, images: np.ndarray) -> Iterator[Tensor]:
        """Yield rows [N, D] for each view of uint8 [N, C, H, W], the images as they are first."""


@dataclasses.dataclass(frozen=True)
class PixelSpace:
    """Pixels of copies of 32 x 32, of mean 0 and length 1.

    So distances do not depend on brightness and contrast. Views are moved by up to one pixel of
    the copy each way, and mirrored: 18 in all. A move by one pixel in 32 takes a slice farther
    from itself than the nearest other patient is.
    """

    device: torch.device
    name: str = "pixels"

    def views(self, images: np.ndarray) -> Iterator[Tensor]:
        """See :class:`Space`."""
        small = _shrink(images, self.device)
        height, width = small.shape[-2:]
        framed = F.pad(small, (1, 1, 1, 1), mode="replicate")
        for down, right in _MOVES:
            moved = framed[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]
            for view in (moved, moved.flip(-1)):
                rows = view.flatten(1)
                yield F.normalize(rows - rows.mean(dim=1, keepdim=True))


@dataclasses.dataclass(frozen=True)
class FeatureSpace:
    """Features of an extractor; views are the image and its mirror image."""

    extractor: Extractor
    name: str = "features"

    def views(self, images: np.ndarray) -> Iterator[Tensor]:
        """See :class:`Space`."""
        yield self.extractor(images)
        yield self.extractor(images[..., ::-1])


def rows_of(space: Space, images: np.ndarray) -> Tensor:
    """Return the rows of images as they are, [N, D]."""
    return next(space.views(images))


def patient_distances(
    views: Iterable[Tensor], others: Tensor, patients: Tensor, count: int
) -> Tensor:
    """Return the distance of each image to the nearest image of each patient.

    Args:
        views: of N images, [N, D] each.
        others: [M, D].
        patients: of `others`, int64 [M], 0 to `count` - 1.

    Returns:
        float32 [N, count]; infinite for a patient without images.
    """
    found: Tensor | None = None
    for view in views:
        if found is None:
            found = view.new_full((len(view), count), torch.inf, dtype=torch.float32)
        for block in distance_blocks(view, others):
            columns = patients[block.columns].expand(len(block.squared), -1)
            found[block.rows].scatter_reduce_(1, columns, block.squared.float(), "amin")
    if found is None:
        raise ValueError("no views")
    return found.sqrt()


def _shrink(images: np.ndarray, device: torch.device) -> Tensor:
    """Average squares until a side has at most 32 pixels: float32 [N, C, h, w]."""
    parts = []
    for start in range(0, len(images), 1024):
        pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + 1024])).to(device)
        factor = -(-pixels.shape[-1] // SIDE)
        parts.append(F.avg_pool2d(pixels.float(), factor) if factor > 1 else pixels.float())
    return torch.cat(parts)
