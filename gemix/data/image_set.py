"""A labelled image set in memory: what the trainers and the metrics read."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images with hard and soft labels, rows in shard order.

    Attributes:
        images: uint8 [N, C, H, W], 0 to 255.
        labels: int64 [N], the dominant class of each image.
        soft_labels: float32 [N, K], rows sum to 1.
        groups: one key per image; images of one patient (or block) share it.
        sources: the file, or the phantom or generator, that each image came from.
        classes: the K class names; label k is classes[k].
        digest: hex digest of the content, equal for equal content wherever it is stored.
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
