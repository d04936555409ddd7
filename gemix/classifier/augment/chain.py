"""Augmentations that follow one another."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from gemix.classifier.augment.base import Augmentation, AugmentContext, FeatureAugmentation


class AugmentationChain(FeatureAugmentation):
    """One augmentation or more, each of which varies what the one before it returns.

    Each has random numbers of its own, and only the first one mirrors, or mirrored images would be
    mirrored back.
    """

    def __init__(self, augmentations: Sequence[Augmentation]):
        """Chain augmentations, at least one."""
        self._augmentations = tuple(augmentations)

    def __call__(
        self, images: Tensor, targets: Tensor, context: AugmentContext
    ) -> tuple[Tensor, Tensor]:
        """Return the images and targets that the last augmentation returns."""
        for augment, own in self._with_contexts(context):
            images, targets = augment(images, targets, own)
        return images, targets

    @contextlib.contextmanager
    def hooked(self, network: nn.Module, context: AugmentContext) -> Iterator[None]:
        """Hook the network for those augmentations that vary features."""
        with contextlib.ExitStack() as stack:
            for augment, own in self._with_contexts(context):
                if isinstance(augment, FeatureAugmentation):
                    stack.enter_context(augment.hooked(network, own))
            yield

    def _with_contexts(
        self, context: AugmentContext
    ) -> Iterator[tuple[Augmentation, AugmentContext]]:
        for number, augment in enumerate(self._augmentations):
            flip = context.horizontal_flip and number == 0
            yield augment, dataclasses.replace(context, stage=number, horizontal_flip=flip)
