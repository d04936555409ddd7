"""Manifold mixup: mixup of the features of a random layer.

Verma et al., "Manifold mixup: Better representations by interpolating hidden states", ICML 2019.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gemix.classifier.augment.base import AugmentContext, FeatureAugmentation
from gemix.classifier.augment.mixing.pairs import mixed, weighted_pairs
from gemix.core.errors import ConfigError

ALPHA = 2.0  # of the Beta distribution, as the paper has it for CIFAR


class ManifoldMixup(FeatureAugmentation):
    """Mix the features of one layer, h_i to lambda h_i + (1 - lambda) h_j, and labels alike.

    All images of a step are mixed at the same layer, whichever worker has them: the input, as in
    mixup, or a stage of the earlier half of the network (:func:`stages`). An image is mixed with
    one of the same pass of the same worker, with a lambda ~ Beta(2, 2) of its own, where the paper
    has one for the batch.
    """

    def __call__(
        self, images: Tensor, targets: Tensor, context: AugmentContext
    ) -> tuple[Tensor, Tensor]:
        """Return the images as they are and mixed targets: the forward pass mixes features."""
        return images, mixed(targets, *weighted_pairs(context, ALPHA, targets.device))

    @contextlib.contextmanager
    def hooked(self, network: nn.Module, context: AugmentContext) -> Iterator[None]:
        """Mix the input or the features of one stage in the forward pass.

        All stages are looked at in every pass, so that the first one tells whether a network will
        do.

        Raises:
            ConfigError: for a network without stages, or with one that is not called once or does
                not return a tensor of a row for each image.
        """
        names = stages(network)
        layer = draw_layer(context, 1 + len(names))
        calls: Counter[str] = Counter()

        def mix(values: Tensor) -> Tensor:
            return mixed(values, *weighted_pairs(context, ALPHA, values.device))

        def mix_input(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return mix(inputs[0]), *inputs[1:]

        def mix_stage(
            module: nn.Module, inputs: tuple[Any, ...], features: Any, *, number: int, name: str
        ) -> Tensor | None:
            if not isinstance(features, Tensor) or len(features) != len(context.batch_indices):
                raise _unusable(network, f"stage {name} returns no tensor of a row for each image")
            calls[name] += 1
            return mix(features) if number == layer else None

        with contextlib.ExitStack() as hooks:
            if layer == 0:
                hooks.enter_context(network.register_forward_pre_hook(mix_input))
            for number, name in enumerate(names, start=1):
                hook = functools.partial(mix_stage, number=number, name=name)
                hooks.enter_context(network.get_submodule(name).register_forward_hook(hook))
            yield
        for name in names:
            if calls[name] != 1:
                raise _unusable(network, f"stage {name} is called {calls[name]} times in a pass")


manifold_mixup = ManifoldMixup()


def stages(network: nn.Module) -> list[str]:
    """Return the names of a timm network's modules whose features can be mixed, the first ones.

    They are the earlier half of the stages of its ``feature_info``, rounded up: of convolutional
    networks stem and stages, of transformers blocks. The paper mixes the input and the outputs of
    the first two of four stages of residual networks.

    Raises:
        ConfigError: for a network that names no stages, or modules that it does not have.
    """
    found = [str(stage["module"]) for stage in getattr(network, "feature_info", None) or ()]
    if not found:
        raise _unusable(network, "timm names no stages of it")
    names = found[: math.ceil(len(found) / 2)]
    for name in names:
        try:
            network.get_submodule(name)
        except AttributeError as error:
            raise _unusable(network, f"it has no stage {name}") from error
    return names


def draw_layer(context: AugmentContext, count: int) -> int:
    """Draw the layer of a step, from 0 to `count` - 1: that of image 0 of the global batch."""
    first = dataclasses.replace(context, batch_indices=(0,))
    return int(first.uniform(3, torch.device("cpu"))[0, 2].item() * count)


def _unusable(network: nn.Module, reason: str) -> ConfigError:
    settings = getattr(network, "pretrained_cfg", None) or {}
    name = settings.get("architecture") or type(network).__name__
    return ConfigError(
        f"classifier.model {name}: its features cannot be mixed, {reason}; choose another model "
        "(resnet, convnext, vit), or mixup for manifold-mixup"
    )
