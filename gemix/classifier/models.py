"""Networks by their timm name.

timm takes seconds to import, which processes that build no network are spared.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from gemix.classifier.augment.base import AugmentContext
from gemix.classifier.augment.registry import load_augmentation
from gemix.core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Specification of a network.

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

    def __str__(self) -> str:
        return (
            f"classifier.model {self.model} for {self.channels} x {self.resolution} x "
            f"{self.resolution} images"
        )


def build(spec: ModelSpec, *, pretrained: bool = False, weights: str | None = None) -> nn.Module:
    """Build a network from float32 images [N, C, H, W] to logits [N, K].

    Args:
        spec: what to build.
        pretrained: whether to start from timm's ImageNet weights; the first layer is folded to
            the number of channels, and the last one is new.
        weights: a safetensors file to take these weights from instead of a download.

    Raises:
        ConfigError: for a name that timm does not know, weights that cannot be loaded or do not
            fit, or images that the network cannot take.
    """
    import timm

    check_name(spec.model)
    options: dict[str, Any] = {}
    if _fixed_size(spec.model):
        options["img_size"] = spec.resolution
    if weights:
        options["pretrained_cfg_overlay"] = {"file": weights}
    try:
        network = timm.create_model(
            spec.model,
            pretrained=pretrained or weights is not None,
            in_chans=spec.channels,
            num_classes=spec.classes,
            **options,
        )
    except Exception as error:
        # downloads, weight files and model constructors fail in as many ways as there are models
        where = weights or ("pretrained weights" if pretrained else "random weights")
        raise ConfigError(
            f"{spec} with {where}: {_reason(error)}; choose another classifier.model or "
            "data.resolution, or set classifier.pretrained to false and classifier.weights to null"
        ) from error
    if weights:
        _check_weights(network, weights)
    return network


def weights_sha256(weights: str | None) -> str | None:
    """Return the SHA-256 of a file of pretrained weights, hex digits; None for None.

    Raises:
        ConfigError: if it cannot be read.
    """
    if weights is None:
        return None
    try:
        with open(weights, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"classifier.weights {weights}: cannot be read ({error.strerror}); correct the path, "
            "or copy the file to this machine"
        ) from error


def check_model(
    model: str, *, channels: int, resolution: int, classes: int = 2, augment: str = "none"
) -> None:
    """Check that a network exists and can be trained on images of this size, varied like this.

    Two images pass through the network without memory or arithmetic (PyTorch's meta device);
    networks that cannot do that compute once on the CPU.

    Raises:
        ConfigError: for a name that timm does not know, images that the network cannot take, or
            features that ``classifier.augment`` cannot vary.
    """
    spec = ModelSpec(model=model, classes=classes, channels=channels, resolution=resolution)
    check_name(model)
    try:
        _forward(spec, "meta", augment)
    except Exception:  # not all networks know the meta device: the CPU decides
        try:
            _forward(spec, "cpu", augment)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{spec}: {_reason(error)}; choose another classifier.model, or a larger "
                "data.resolution"
            ) from error


def check_name(model: str) -> None:
    """Check that timm has a model of that name.

    Raises:
        ConfigError: with the nearest names, if it has none.
    """
    import timm

    if ":" not in model and "/" not in model and timm.is_model(model):
        return
    nearest = difflib.get_close_matches(model, timm.list_models(), n=3)
    hint = f"did you mean {', '.join(nearest)}?" if nearest else "see timm.list_models()"
    raise ConfigError(f"classifier.model {model!r}: timm has no model of that name; {hint}")


def _forward(spec: ModelSpec, device: str, augment: str) -> None:
    """Run a training-mode forward pass of two images through a new network."""
    context = AugmentContext(seed=0, step=0, batch_indices=range(2), horizontal_flip=False)
    with torch.random.fork_rng(devices=[]), torch.device(device), torch.no_grad():
        network = build(spec).train()
        with load_augmentation(augment).hooked(network, context):
            logits = network(torch.zeros(2, spec.channels, *[spec.resolution] * 2))
    if logits.shape != (2, spec.classes):
        raise ConfigError(
            f"{spec}: returns {list(logits.shape)} for 2 images and {spec.classes} classes; "
            "choose another classifier.model"
        )


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _check_weights(network: nn.Module, weights: str) -> None:
    """Refuse a file that lacks layers, which timm would leave random with a warning only."""
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
    """Return whether the network (a transformer, say) must be told the image size."""
    import timm

    settings = timm.get_pretrained_cfg(model.split(".")[0], allow_unregistered=True)
    return bool(settings and settings.fixed_input_size)
