"""Networks by their timm name."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

import timm
from safetensors import safe_open
from torch import nn

from gemix.core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a network is built from.

    Attributes:
        model: a timm name, with or without a pretrained tag.
        classes: number of logits, K.
        channels: of the images, 1 or 3.
        resolution: height and width of the images.
    """

    model: str
    classes: int
    channels: int
    resolution: int


def build(
    architecture: Architecture, *, pretrained: bool = False, weights: str | None = None
) -> nn.Module:
    """The network, from float32 images [N, C, H, W] to logits [N, K].

    Args:
        architecture: what to build.
        pretrained: whether it begins with timm's ImageNet weights; the first layer is folded to
            the number of channels, and the last one is new.
        weights: a safetensors file to take these weights from in place of a download.

    Raises:
        ConfigError: for a name that timm does not know, weights that cannot be had or do not fit,
            or images that the network cannot take.
    """
    check_name(architecture.model)
    options: dict[str, Any] = {}
    if _fixed_size(architecture.model):
        options["img_size"] = architecture.resolution
    if weights:
        options["pretrained_cfg_overlay"] = {"file": weights}
    try:
        network = timm.create_model(
            architecture.model,
            pretrained=pretrained or weights is not None,
            in_chans=architecture.channels,
            num_classes=architecture.classes,
            **options,
        )
    except Exception as error:
        # downloads, weight files and model constructors fail in as many ways as there are models
        where = weights or ("pretrained weights" if pretrained else "random weights")
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"classifier.model {architecture.model} for {architecture.channels} x "
            f"{architecture.resolution} x {architecture.resolution} images with {where}: {reason}; "
            "choose another classifier.model or data.resolution, or set classifier.pretrained "
            "to false and classifier.weights to null"
        ) from error
    if weights:
        _check_weights(network, weights)
    return network


def check_name(model: str) -> None:
    """Whether timm has a model of that name.

    Raises:
        ConfigError: with the nearest names, if it has not.
    """
    if ":" not in model and "/" not in model and timm.is_model(model):
        return
    nearest = difflib.get_close_matches(model, timm.list_models(), n=3)
    hint = f"did you mean {', '.join(nearest)}?" if nearest else "see timm.list_models()"
    raise ConfigError(f"classifier.model {model!r}: timm has no model of that name; {hint}")


def _check_weights(network: nn.Module, weights: str) -> None:
    """Refuses a file that lacks layers, which timm would leave at random with a warning only."""
    with safe_open(weights, framework="pt") as file:
        given = set(file.keys())
    heads = network.pretrained_cfg["classifier"]
    heads = (heads,) if isinstance(heads, str) else tuple(heads or ())
    missing = [
        name
        for name, _ in network.named_parameters()
        if name not in given and not name.startswith(heads)
    ]
    if missing:
        raise ConfigError(
            f"classifier.weights {weights}: {len(missing)} layers of the network are not in it, "
            f"{missing[0]!r} for one; it belongs to another model"
        )


def _fixed_size(model: str) -> bool:
    """Whether the network (a transformer, say) must be told the image size."""
    settings = timm.get_pretrained_cfg(model.split(".")[0], allow_unregistered=True)
    return bool(settings and settings.fixed_input_size)
