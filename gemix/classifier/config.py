"""Settings of the classifiers."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from gemix.classifier.augment.registry import AUGMENTATIONS, HOOKED, MIXING, MOST_STAGES
from gemix.classifier.recipes.registry import PLANNED, RECIPES
from gemix.core.config_schema import Config, ConfigIssue, Fraction, Location, Range, Seed

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
    weights: Annotated[str | None, Location(), "Safetensors file of pretrained weights."] = None
    epochs: Annotated[int, Range(1, 100_000), "Length of the training, in epochs."] = 30
    early_stopping: Annotated[
        int | None,
        Range(1, 100_000),
        "Epochs in a row without a better validation macro-F2, or lower loss at the same, that end "
        "a training; null: none do.",
    ] = None
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
    optimizer: Annotated[str, "Name of a timm optimizer: adamw, sgd, lamb, lion, and others."] = (
        "adamw"
    )
    lr: Annotated[float, Range(1e-8, 1.0), "Highest learning rate; it falls by a cosine."] = 3e-4
    warmup: Annotated[
        Fraction, "Share of the steps in which the learning rate rises, linearly from about 0."
    ] = 0.05
    weight_decay: Annotated[float, Range(0, 1000), "Weight decay; biases and norms have none."] = (
        0.05
    )
    clip_grad: Annotated[
        float | None,
        Range(1e-6, 1e6),
        "Largest norm of the gradient of a step, averaged over the workers; null: no limit.",
    ] = None
    ema: Annotated[
        float | None,
        Range(0, 0.999999),
        "Decay of averaged weights, lower in early steps; they are validated and kept; null: none.",
    ] = None
    label_smoothing: Annotated[
        float,
        Range(0, 0.99),
        "Share e of every target, soft and mixed ones too, that is uniform: (1 - e) y + e / K.",
    ] = 0.0
    precision: Annotated[
        Literal["float32", "bfloat16", "auto"],
        "Precision of training passes, weights are float32; auto: bfloat16 where hardware is fast.",
    ] = "float32"
    compile: Annotated[
        bool, "Whether training passes run as torch.compile compiles them: minutes to begin with."
    ] = False
    augment: Annotated[
        str,
        "How training images are varied: one augmentation, as in randaugment, or two, as in "
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
    balance: Annotated[
        Literal["none", "sampler", "loss"],
        "Rare classes shown as often as others, or weighted by 1 / real images in the loss.",
    ] = "none"
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
            allowed = f"one or two of {', '.join(AUGMENTATIONS)}; only second: {', '.join(MIXING)}"
            issues.append(ConfigIssue("augment", self.augment, allowed))
        elif self.recipe == "weight" and names[-1] in MIXING:
            allowed = f"another recipe beside {names[-1]}: a mixed image has no weight of its own"
            issues.append(ConfigIssue("recipe", self.recipe, allowed))
        if self.compile and {*names} & {*HOOKED}:
            allowed = f"false with augment={self.augment}, which changes the network at each step"
            issues.append(ConfigIssue("compile", self.compile, allowed))
        if self.early_stopping is not None and self.recipe in PLANNED:
            allowed = f"null with recipe={self.recipe}, which plans all of a training's steps"
            issues.append(ConfigIssue("early_stopping", self.early_stopping, allowed))
        if self.weights is not None and not self.weights.endswith(".safetensors"):
            issues.append(ConfigIssue("weights", self.weights, "a .safetensors file, or null"))
        if self.seed + self.seeds > 2**32:
            allowed = f"at most {2**32 - self.seeds}: seeds={self.seeds} follow one another"
            issues.append(ConfigIssue("seed", self.seed, allowed))
        return issues
