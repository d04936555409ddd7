"""A method of training: which images, with which labels, varied and used how."""

from __future__ import annotations

import dataclasses
import re
from typing import Self

from gemix.classifier.augment.registry import AUGMENTATIONS
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.recipes.registry import RECIPES
from gemix.comparison.relabel.registry import RELABELLINGS
from gemix.core.errors import ConfigError
from gemix.io.results import REAL

REPEATED = "repeated"  # the same, as often as with synthetic images: a control
HELD_BACK = "held-back"  # real images of the training patients that a draw leaves out: a ceiling
_NEED_OTHERS = {*RECIPES, "hard", "asked"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """One method of a comparison.

    Attributes:
        name: as it was written: ``softmax+cutmix+pretrain``.
        images: ``real``, ``repeated``, ``held-back``, or the name of the synthetic set that is
            added.
        augment: an augmentation after ``classifier.augment``, None for no other.
        recipe: of `RECIPES`, None for ``classifier.recipe``.
        labels: of `RELABELLINGS`, None for those of the set.
    """

    name: str
    images: str
    augment: str | None = None
    recipe: str | None = None
    labels: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the method of a name.

        Raises:
            ConfigError: for names that are not known, twice the same kind, or recipes without
                synthetic images.
        """
        images, *parts = text.split("+")
        if not _NAME.fullmatch(images):
            raise ConfigError("the name of a set of images first: real, softmax")
        found: dict[str, str] = {}
        kinds = {"augment": AUGMENTATIONS, "recipe": RECIPES, "labels": RELABELLINGS}
        for part in parts:
            kind = next((kind for kind, names in kinds.items() if part in names), None)
            if kind is None:
                known = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items())
                raise ConfigError(f"{part!r} is none of {known}")
            if kind in found:
                raise ConfigError(f"{found[kind]!r} and {part!r} are both of the kind {kind}")
            found[kind] = part
        if images in (REAL, REPEATED):
            needy = [name for name in found.values() if name in _NEED_OTHERS]
            if needy:
                raise ConfigError(f"{needy[0]!r} needs synthetic images")
        return cls(name=text, images=images, **found)

    @property
    def synthetic(self) -> str | None:
        """The name of the synthetic set that is added, if any."""
        return None if self.images in (REAL, REPEATED, HELD_BACK) else self.images

    def configured(self, classifier: ClassifierConfig) -> ClassifierConfig:
        """Return the settings of a training by this method.

        Raises:
            ConfigError: for an augmentation that cannot follow ``classifier.augment``, or a recipe
                that does not go with it.
        """
        augment = classifier.augment if self.augment is None else self.augment
        if self.augment not in (None, "none", classifier.augment):
            augment = f"{classifier.augment}+{self.augment}"
        return dataclasses.replace(
            classifier, augment=augment, recipe=self.recipe or classifier.recipe
        )

    def trains_as(self, classifier: ClassifierConfig) -> tuple[str, str, str, str | None]:
        """Return what is equal for two methods that are the same under these settings."""
        found = self.configured(classifier)
        recipe = "mix" if self.images in (REAL, REPEATED) else found.recipe
        return self.images, found.augment, recipe, self.labels


def is_set_name(name: str) -> bool:
    """Return whether a synthetic set may be called so in a method."""
    return _NAME.fullmatch(name) is not None and name not in (REAL, REPEATED, HELD_BACK)
