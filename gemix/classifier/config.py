"""Settings of the classifiers."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from gemix.classifier.augment.registry import AUGMENTATIONS, MIXING, MOST_STAGES
from gemix.classifier.recipes.registry import RECIPES
from gemix.core.config_schema import Config, ConfigIssue, Range, Seed

RecipeName = Literal[tuple(RECIPES)]
SyntheticWeight = Annotated[float, Range(1e-6, 1.0)]
SyntheticShare = Annotated[float, Range(0.01, 0.99)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierConfig(Config):
    """A timm model and how it is trained."""

    model: Annotated[str, "Name of a timm model."] = "resnet50"
    pretrained: Annotated[
        bool,
        "Whether to start from ImageNet weights; timm downloads them unless `weights` is set.",
    ] = False
    weights: Annotated[str | None, "Safetensors file of pretrained weights."] = None
    epochs: Annotated[int, Range(1, 100_000), "Length of the training, in epochs."] = 30
    epoch_images: Annotated[
        int | None,
        Range(1, 10**9),
        "Images of an epoch; null: as many as real ones, so that all methods take as many steps.",
    ] = None
    batch: Annotated[int, Range(2, 65536), "Images in one step, over all workers."] = 32
    accumulate: Annotated[
        int,
        Range(1, 65536),
        "Backward passes of a worker's share of a batch, for less memory; batch norm is by pass.",
    ] = 1
    lr: Annotated[float, Range(1e-8, 1.0), "Highest learning rate (AdamW, warm-up, cosine)."] = 3e-4
    weight_decay: Annotated[float, Range(0, 1000), "Weight decay of AdamW."] = 0.05
    augment: Annotated[
        str,
        f"How training images are varied: {', '.join(AUGMENTATIONS)}, or two of them, as in "
        "ct+cutmix.",
    ] = "ct"
    horizontal_flip: Annotated[
        bool, "Whether to mirror half of the training images; the heart's side carries meaning."
    ] = False
    recipe: Annotated[
        RecipeName,
        "How synthetic images are used: mixed in, weighted in the loss, fewer and fewer, or first "
        "alone.",
    ] = "mix"
    synthetic_weight: Annotated[
        SyntheticWeight, "recipe=weight: weight of a synthetic image in the loss."
    ] = 0.5
    synthetic_share: Annotated[
        SyntheticShare,
        "recipe=curriculum or pretrain: share of synthetic images among all that are shown.",
    ] = 0.5
    seeds: Annotated[
        int, Range(1, 1000), "Repetitions of every training, with seed, seed + 1, and so on."
    ] = 1
    seed: Annotated[Seed, "First seed of weights, image order and augmentation."] = 0

    def validate(self) -> list[ConfigIssue]:
        """Require safetensors weights (other formats can run code) and seeds below 2^32."""
        issues = []
        names = self.augment.split("+")
        is_known = len(set(names)) == len(names) <= MOST_STAGES and set(names) <= set(AUGMENTATIONS)
        if not is_known or names[0] in MIXING:
            allowed = f"one or two of {', '.join(AUGMENTATIONS)}; {' and '.join(MIXING)} second"
            issues.append(ConfigIssue("augment", self.augment, allowed))
        elif self.recipe == "weight" and names[-1] in MIXING:
            allowed = f"another recipe beside {names[-1]}: a mixed image has no weight of its own"
            issues.append(ConfigIssue("recipe", self.recipe, allowed))
        if self.weights is not None and not self.weights.endswith(".safetensors"):
            issues.append(ConfigIssue("weights", self.weights, "a .safetensors file, or null"))
        if self.seed + self.seeds > 2**32:
            allowed = f"at most {2**32 - self.seeds}: seeds={self.seeds} follow one another"
            issues.append(ConfigIssue("seed", self.seed, allowed))
        return issues
