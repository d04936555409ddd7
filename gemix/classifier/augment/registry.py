"""The classifier augmentations by the name that ``classifier.augment`` takes: one line each.

Entries are references that are resolved on first use, so that names cost no import of PyTorch.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemix.classifier.augment.chain import AugmentationChain

_PACKAGE = "gemix.classifier.augment"

AUGMENTATIONS: dict[str, str] = {
    "augmix": f"{_PACKAGE}.augmix:augmix",
    "ct": f"{_PACKAGE}.ct:ct",
    "cutmix": f"{_PACKAGE}.mixing.cutmix:cutmix",
    "cutout": f"{_PACKAGE}.cutout:cutout",
    "geometric": f"{_PACKAGE}.geometric:geometric",
    "manifold-mixup": f"{_PACKAGE}.mixing.manifold_mixup:manifold_mixup",
    "mixup": f"{_PACKAGE}.mixing.mixup:mixup",
    "none": f"{_PACKAGE}.none:none",
    "photometric": f"{_PACKAGE}.photometric:photometric",
    "randaugment": f"{_PACKAGE}.randaugment:randaugment",
    "trivial": f"{_PACKAGE}.trivial:trivial",
}

MIXING = ("cutmix", "manifold-mixup", "mixup")
"""Those that mix images of a batch or their features: they follow one that varies single images."""
HOOKED = ("manifold-mixup",)
"""Those that reach into the network: a ``FeatureAugmentation``."""
MOST_STAGES = 2


def load_augmentation(name: str) -> AugmentationChain:
    """Return the augmentation of a registered name, or of two names joined by ``+``.

    Of two, the second varies what the first returns: ``ct+cutmix``.
    """
    from gemix.classifier.augment.chain import AugmentationChain

    return AugmentationChain([pkgutil.resolve_name(AUGMENTATIONS[n]) for n in name.split("+")])
