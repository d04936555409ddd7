"""The classifier augmentations by the name that ``classifier.augment`` takes: one line each.

Entries are references that are resolved on first use, so that names cost no import of PyTorch.
"""

from __future__ import annotations

import dataclasses
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from gemix.classifier.augment.base import Augmentation, AugmentContext

_PACKAGE = "gemix.classifier.augment"

AUGMENTATIONS: dict[str, str] = {
    "augmix": f"{_PACKAGE}.augmix:augmix",
    "ct": f"{_PACKAGE}.ct:ct",
    "cutmix": f"{_PACKAGE}.mixing.cutmix:cutmix",
    "cutout": f"{_PACKAGE}.cutout:cutout",
    "geometric": f"{_PACKAGE}.geometric:geometric",
    "mixup": f"{_PACKAGE}.mixing.mixup:mixup",
    "none": f"{_PACKAGE}.none:none",
    "photometric": f"{_PACKAGE}.photometric:photometric",
    "randaugment": f"{_PACKAGE}.randaugment:randaugment",
    "trivial": f"{_PACKAGE}.trivial:trivial",
}

MIXING = ("cutmix", "mixup")
"""Those that mix images of a batch: they follow one that varies single images."""
MOST_STAGES = 2


def load_augmentation(name: str) -> Augmentation:
    """Return the augmentation of a registered name, or of two names joined by ``+``.

    Of two, the second varies what the first returns: ``ct+cutmix``.
    """
    stages: list[Augmentation] = [pkgutil.resolve_name(AUGMENTATIONS[n]) for n in name.split("+")]
    if len(stages) == 1:
        return stages[0]

    def chain(images: Tensor, targets: Tensor, context: AugmentContext) -> tuple[Tensor, Tensor]:
        for number, augment in enumerate(stages):
            # only the first one mirrors, or mirrored images would be mirrored back
            flip = context.horizontal_flip and number == 0
            present = dataclasses.replace(context, stage=number, horizontal_flip=flip)
            images, targets = augment(images, targets, present)
        return images, targets

    return chain
