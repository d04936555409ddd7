"""Training images in memory, in an order that is a function of the seed and the step."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gemix.errors import DataError
from gemix.randomness import Stream, permutation, sample_rng


class TrainingImages:
    """Images and soft labels that batches are drawn from.

    Args:
        images: uint8 [N, C, H, W].
        labels: float32 [N, K], rows sum to 1; K = 0 for unconditional training.
        seed: of the order. Each epoch is a permutation of its own; batches run across the ends
            of epochs, so that none is short.
        device: where the images are kept.

    Raises:
        DataError: for no images, or images that are not square with a side of a power of two.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, seed: int, device: torch.device | str = "cpu"
    ):
        if not len(images):
            raise DataError("no training images; is there a train split in the data?")
        size = images.shape[-1]
        if images.shape[-2] != size or size & (size - 1) or size < 8:
            raise DataError(
                f"training images are {images.shape[-2]} x {size}; squares with a side of a power "
                "of two from 8 on are wanted"
            )
        self.images = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        self.labels = torch.from_numpy(np.ascontiguousarray(labels, dtype=np.float32)).to(device)
        self.seed = seed
        self._epoch = functools.lru_cache(maxsize=2)(
            lambda epoch: permutation(seed, Stream.DATA_ORDER, len(images), step=epoch)
        )

    def __len__(self) -> int:
        return len(self.images)

    def real_batch(self, step: int, batch: int, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The samples at `positions` of the global batch of a step.

        Returns:
            float32 images [n, C, H, W] from -1 to 1, and labels [n, K].
        """
        rows = []
        for position in positions:
            epoch, place = divmod(step * batch + position, len(self))
            rows.append(int(self._epoch(epoch)[place]))
        return self.images[rows].float() / 127.5 - 1, self.labels[rows]

    def random_labels(self, stream: Stream, step: int, positions: Sequence[int]) -> Tensor:
        """Labels [n, K] of training images drawn at random, to ask the generator for."""
        rows = [
            int(sample_rng(self.seed, stream, position, step).integers(len(self)))
            for position in positions
        ]
        return self.labels[rows]
