"""The interface of a classifier augmentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gemix.core.rng import Stream, uniform

_STREAMS = (Stream.CLASSIFIER_AUGMENT, Stream.CLASSIFIER_MIXING)  # one a stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentContext:
    """Inputs of an augmentation beside the batch.

    Attributes:
        seed: of the training.
        step: of the training.
        batch_indices: index of each image in the global batch, whichever worker has it.
        horizontal_flip: whether half of the images are mirrored.
        stage: position among augmentations that follow one another; each has its own numbers.
    """

    seed: int
    step: int
    batch_indices: Sequence[int]
    horizontal_flip: bool
    stage: int = 0

    def uniform(self, count: int, device: torch.device) -> Tensor:
        """Draw `count` uniform numbers in [0, 1) for each image: float32 [n, count].

        They are functions of seed, stage, step and batch index; every call returns the same ones.
        """
        stream = _STREAMS[self.stage]
        drawn = uniform(self.seed, stream, self.batch_indices, (count,), self.step)
        return torch.from_numpy(drawn).to(device)

    def mirrored(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return images [n, C, H, W], if asked for mirrored where a draw of [n] is below 1/2."""
        if not self.horizontal_flip:
            return images
        return torch.where((draws < 0.5).view(-1, 1, 1, 1), images.flip(-1), images)


class Augmentation(Protocol):
    """Vary a training batch; :mod:`gemix.classifier.augment.testing` holds its contract."""

    def __call__(
        self, images: Tensor, targets: Tensor, context: AugmentContext
    ) -> tuple[Tensor, Tensor]:
        """Return the varied images and their targets.

        Args:
            images: normalized, float32 [n, C, H, W].
            targets: soft labels, float32 [n, K].
            context: the only source of randomness.
        """


@runtime_checkable
class FeatureAugmentation(Augmentation, Protocol):
    """An augmentation that varies features inside the network too, while the batch passes."""

    def hooked(self, network: nn.Module, context: AugmentContext) -> AbstractContextManager[None]:
        """Return the context of the forward pass of a batch; hooks are gone at its end.

        Args:
            network: called once in the context, by itself or by DistributedDataParallel.
            context: that of the call which returned the images and targets of this pass.

        Raises:
            ConfigError: for a network whose features it cannot vary, in every pass alike.
        """
