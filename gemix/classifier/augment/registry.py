"""The classifier augmentations by the name that ``classifier.augment`` takes: one line each.

Entries are references that are resolved on first use, so that names cost no import of PyTorch.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemix.classifier.augment.base import Augmentation

_PACKAGE = "gemix.classifier.augment"

AUGMENTATIONS: dict[str, str] = {
    "ct": f"{_PACKAGE}.ct:ct",
    "none": f"{_PACKAGE}.none:none",
}


def load_augmentation(name: str) -> Augmentation:
    """Return the augmentation of a registered name."""
    return pkgutil.resolve_name(AUGMENTATIONS[name])
