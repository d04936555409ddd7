"""Training images: what every reader of them offers, and the reader that holds them all."""

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
    """Images and soft labels that batches are drawn from.

    Sample i of a training is the image at position i - step * batch of the batch of a step, so
    batches run across the ends of epochs and none is short. Which image it is follows from the
    order alone: every reader gives the same batches, whatever the number of workers, and at any
    step, so that a training resumes without a cursor to save.

    Args:
        labels: float32 [N, K], rows sum to 1; K = 0 for unconditional training.
        shape: channels, height and width of the images.
        order: of the N images.
        device: where batches go.

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
            raise DataError("no training images; is there a train split in the data?")
        _, height, width = shape
        if height != width or not is_side(width):
            raise DataError(
                f"training images are {height} x {width}; squares with a side of a power of two "
                "from 8 on are wanted"
            )
        self.labels = torch.from_numpy(np.ascontiguousarray(labels, dtype=np.float32)).to(device)
        self.shape, self.order = shape, order
        self.device = self.labels.device

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def resolution(self) -> int:
        """Height and width of the images, in pixels."""
        return self.shape[-1]

    @abc.abstractmethod
    def real_batch(self, step: int, batch: int, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The samples at `positions` of the global batch of a step.

        Returns:
            float32 images [n, C, H, W] from -1 to 1, and labels [n, K].
        """

    def random_labels(self, uniform: Tensor) -> Tensor:
        """Labels [n, K] of training images, each as likely as the others, to ask the generator for.

        `uniform` are n random numbers in [0, 1), float64 [n] on the device.
        """
        return self.labels[(uniform * len(self)).long()]

    def to_device(self, values: np.ndarray) -> Tensor:
        """The values on the device; nothing there is waited for."""
        tensor = torch.from_numpy(values)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def unconditional(self) -> TrainingDataset:
        """The same images without labels, K = 0."""
        view = copy.copy(self)
        view.labels = self.labels[:, :0]
        return view

    def close(self) -> None:  # noqa: B027 (most readers have nothing to let go)
        """Stops reading ahead; the data are not used any more."""


class InMemoryDataset(TrainingDataset):
    """All images in the memory of the device.

    Args:
        images: uint8 [N, C, H, W].
        labels: float32 [N, K], rows sum to 1; K = 0 for unconditional training.
        seed: of the order and of random labels.
        device: where the images are kept.
        order: the order, with the same seed; by default each epoch is shuffled as a whole.

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

    def real_batch(self, step: int, batch: int, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """See :class:`TrainingDataset`."""
        rows = []
        for sample in (step * batch + position for position in positions):
            window = self.order.window_of(sample)
            rows.append(window.rows[sample - window.start])
        places = self.to_device(np.asarray(rows, dtype=np.int64))
        return to_floats(self.images[places]), self.labels[places]


def to_floats(images: Tensor) -> Tensor:
    """Images uint8 as float32 from -1 to 1."""
    return images.float() / 127.5 - 1
