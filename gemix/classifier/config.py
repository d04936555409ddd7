"""Settings of the classifiers."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from gemix.core.config_schema import Config, ConfigIssue, Count, NonNegative, Positive, Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierConfig(Config):
    """A timm model and how it is trained.

    `model` is any timm name. `pretrained` loads timm's ImageNet weights (downloaded by timm, or
    read from `weights`, a safetensors file). `seeds` repeats every training with the seeds `seed`,
    `seed` + 1, and so on, so that the report can tell an effect from luck.

    `epoch_images` is the number of images that an epoch shows. Null means the number of *real*
    training images, for the real + synthetic sets too: every training then takes the same number
    of steps, and none is better for having been trained longer. A larger set is simply gone
    through in more epochs.

    `horizontal_flip` mirrors half of the training images. It is off because the side of the heart
    carries meaning.
    """

    model: str = "resnet50"
    pretrained: bool = False
    weights: str | None = None
    epochs: Positive = 30
    epoch_images: Positive | None = None
    batch: Annotated[int, Range(low=2)] = 32
    lr: Annotated[float, Range(low=1e-8, high=1.0)] = 3e-4
    weight_decay: NonNegative = 0.05
    horizontal_flip: bool = False
    seeds: Positive = 1
    seed: Count = 0

    def validate(self) -> list[ConfigIssue]:
        """Weights come as safetensors: the other formats can run code when they are read."""
        if self.weights is None or self.weights.endswith(".safetensors"):
            return []
        return [ConfigIssue("weights", self.weights, "a .safetensors file, or null")]
