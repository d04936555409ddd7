"""The interface of training datasets, and the dataset that is held in memory."""

from __future__ import annotations

import abc
import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gemix.core.errors import DataError
from gemix.gan.data.shuffle_order import ShuffleOrder
from gemix.gan.models.architecture import is_side


class TrainingDataset(abc.ABC):
    """Images and soft labels, batched in the order of a training.

    Batches cross the ends of epochs, so that none is short, and depend on the order alone: every
    dataset returns the same ones for any number of workers and at any step, so that a training
    resumes without a saved cursor. :mod:`gemix.gan.data.shuffle_order` defines the indices;
    subclasses must pass :class:`gemix.gan.data.testing.TrainingDatasetContract`.

    Args:
        labels: float32 [N, K], rows sum to 1; K = 0 for unconditional training.
        shape: channels, height and width of the images.
        order: of the N images.
        device: of the batches.

    Raises:
        DataError: for no images, or images that are not square with a side of a power of two.
    """

    def __init__(
        self,
        labels: np.ndarray,
        shape: tuple[int, int, int],
        order: ShuffleOrder,
        device: torch.device | str,
    ):
        if not len(labels):
            raise DataError("no training images; prepare data with a train split")
        _, height, width = shape
        if height != width or not is_side(width):
            raise DataError(
                f"training images are {height} x {width}; prepare square ones with a side of a "
                "power of two from 8 on"
            )
        self.labels = torch.from_numpy(np.ascontiguousarray(labels, dtype=np.float32)).to(device)
        self.shape, self.order = shape, order
        self._cumulative: Tensor | None = None
        if order.row_weights is not None:
            self._cumulative = torch.from_numpy(np.cumsum(order.row_weights)).to(device)
        self.device = self.labels.device

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def resolution(self) -> int:
        """Height and width of the images, in pixels."""
        return self.shape[-1]

    @abc.abstractmethod
    def real_batch(
        self, step: int, batch: int, batch_index: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Return the samples at these indices of the global batch of a step.

        Args:
            batch: size of the global batch.
            batch_index: n indices from 0 to batch - 1.

        Returns:
            float32 images [n, C, H, W] from -1 to 1, and labels [n, K].
        """

    def random_labels(self, uniform: Tensor) -> Tensor:
        """Return labels [n, K] of images drawn as the order shows them, to condition on.

        `uniform`: random numbers in [0, 1), float64 [n] on the device.
        """
        if self._cumulative is None:
            return self.labels[(uniform * len(self)).long()]
        rows = torch.searchsorted(self._cumulative, uniform, right=True)
        return self.labels[rows.clamp_max(len(self) - 1)]

    def to_device(self, values: np.ndarray) -> Tensor:
        """Copy to the device without synchronizing with it."""
        tensor = torch.from_numpy(values)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def unconditional(self) -> TrainingDataset:
        """Return a view of the dataset without labels, K = 0."""
        view = copy.copy(self)
        view.labels = self.labels[:, :0]
        return view

    def close(self) -> None:  # noqa: B027 (not every dataset holds resources)
        """Release threads and files; the dataset is not used any more."""


class InMemoryDataset(TrainingDataset):
    """All images in the memory of the device.

    Args:
        images: uint8 [N, C, H, W].
        labels: float32 [N, K], rows sum to 1; K = 0 for unconditional training.
        seed: of the default order.
        device: of images and batches.
        order: of the images; by default each epoch is shuffled as a whole.

    Raises:
        DataError: as :class:`TrainingDataset`.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        seed: int,
        device: torch.device | str = "cpu",
        *,
        order: ShuffleOrder | None = None,
    ):
        order = order or ShuffleOrder(seed, [len(images)], window_rows=len(images))
        super().__init__(labels, images.shape[1:], order, device)
        self.images = torch.from_numpy(np.ascontiguousarray(images)).to(device)

    def real_batch(
        self, step: int, batch: int, batch_index: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Return samples; see :meth:`TrainingDataset.real_batch`."""
        rows = []
        for sample_id in (step * batch + index for index in batch_index):
            window = self.order.window_of(sample_id)
            rows.append(window.dataset_rows[sample_id - window.start])
        dataset_rows = self.to_device(np.asarray(rows, dtype=np.int64))
        return to_floats(self.images[dataset_rows]), self.labels[dataset_rows]


def to_floats(images: Tensor) -> Tensor:
    """Convert uint8 images to float32 from -1 to 1."""
    return images.float() / 127.5 - 1
