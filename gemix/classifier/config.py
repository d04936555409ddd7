"""Settings of the classifiers."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from gemix.schema import Config, Count, NonNegative, Positive, Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierConfig(Config):
    """A timm model and how it is trained.

    `model` is any timm name. `pretrained` loads timm's ImageNet weights (downloaded by timm, or
    read from `weights`, a safetensors file). `seeds` repeats every training with that many seeds,
    so that the report can tell an effect from luck. `epoch_images` fixes the images of an epoch,
    so that a larger (real + synthetic) set does not mean more steps; null shows each image once.
    """

    model: str = "resnet50"
    pretrained: bool = False
    weights: str | None = None
    epochs: Positive = 30
    epoch_images: Positive | None = None
    batch: Positive = 32
    lr: Annotated[float, Range(low=1e-8, high=1.0)] = 3e-4
    weight_decay: NonNegative = 0.05
    seeds: Positive = 1
    seed: Count = 0
