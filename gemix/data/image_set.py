"""A labelled image set in memory, as trainers and metrics read it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images with hard and soft labels, rows in shard order.

    Attributes:
        images: uint8 [N, C, H, W], 0 to 255.
        labels: int64 [N], the dominant class of each image.
        soft_labels: float32 [N, K], rows sum to 1.
        groups: one key for each image; images of one patient (or group of neighbours) share it.
        sources: the file, phantom slice or generator that each image came from.
        classes: the K class names; label k is classes[k].
        digest: hex digest of the content, wherever it is stored.
    """

    images: np.ndarray
    labels: np.ndarray
    soft_labels: np.ndarray
    groups: tuple[str, ...]
    sources: tuple[str, ...]
    classes: tuple[str, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.images)


def concatenate(sets: Sequence[ImageSet]) -> ImageSet:
    """Return sets of the same classes and shape as one, in the order given."""
    return ImageSet(
        images=np.concatenate([one.images for one in sets]),
        labels=np.concatenate([one.labels for one in sets]),
        soft_labels=np.concatenate([one.soft_labels for one in sets]),
        groups=tuple(group for one in sets for group in one.groups),
        sources=tuple(source for one in sets for source in one.sources),
        classes=sets[0].classes,
        digest=combine_digests([one.digest for one in sets]),
    )


def combine_digests(parts: Sequence[str]) -> str:
    """Return the SHA-256 of several digests, in their order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
