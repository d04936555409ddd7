"""Feature extractors from timm models, with pretrained or with seeded random weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gemix.core.errors import ConfigError
from gemix.core.rng import Stream, normal, uniform
from gemix.evaluation.image_quality.features.base import Extractor, weights_checksum

SEED = 0
SMALLEST = 64  # pixels; most networks reduce smaller images to nothing
_PROBE = 32


def pretrained_extractor(model: str, resolution: int, device: torch.device) -> Extractor:
    """Return the pooled features of a pretrained network, at the size and scale of its training.

    Args:
        model: timm name.
        resolution: not needed; images are resized to the size of the training.

    Raises:
        ConfigError: for a model that timm does not know, or weights that cannot be loaded.
    """
    from timm.data import resolve_model_data_config  # slow to import, and most jobs do without

    network = _create(f"timm:{model}", model, pretrained=True)
    settings = resolve_model_data_config(network)
    return _extractor(
        f"timm:{model}",
        network,
        device,
        side=settings["input_size"][-1],
        mean=settings["mean"],
        std=settings["std"],
    )


def random_extractor(model: str, resolution: int, device: torch.device) -> Extractor:
    """Return the pooled features of a network with seeded random weights.

    Naeem et al., "Reliable fidelity and diversity metrics for generative models", 2020, section 5,
    find random embeddings fairer than ImageNet's for images far from photographs. All weights are
    drawn here (He et al. 2015, biases 0) and are the same with every version of timm and PyTorch.
    Features are divided by their root mean square over some images of smooth noise: in untrained
    networks they grow with depth, and the cubic kernel of KID would see only the largest.

    Args:
        model: timm name.
        resolution: of the images; those below 64 pixels are enlarged to 64.

    Raises:
        ConfigError: for a model that timm does not know or that cannot take the images.
    """
    import timm

    settings = timm.get_pretrained_cfg(model.split(".")[0], allow_unregistered=True)
    fixed = bool(settings and settings.fixed_input_size)
    side = settings.input_size[-1] if settings and fixed else max(SMALLEST, resolution)
    network = _create(f"timm-random:{model}", model, pretrained=False)
    _randomize(network)
    name = f"timm-random:{model} of seed {SEED}"
    plain = _extractor(name, network, device, side=side, mean=(0.5,) * 3, std=(0.5,) * 3)
    scale = plain(_smooth_noise()).square().mean().sqrt()
    return dataclasses.replace(plain, forward=lambda images: plain.forward(images) / scale)


def _create(spec: str, model: str, *, pretrained: bool) -> nn.Module:
    import timm

    try:
        # timm draws the weights that it does not load from PyTorch's own generator
        with torch.random.fork_rng(devices=[]):
            return timm.create_model(model, pretrained=pretrained, num_classes=0)
    except Exception as error:
        # an unknown name, no network and a broken download all look different
        reason = (str(error) or type(error).__name__).splitlines()[0]
        remedy = "see timm.list_models() for the names"
        if pretrained:
            remedy += (
                "; its weights are downloaded once into the Hugging Face cache (HF_HOME), so run "
                f"once where there is a network, or set metrics.extractor=timm-random:{model}"
            )
        raise ConfigError(f"metrics.extractor {spec}: {reason}; {remedy}") from error


def _extractor(name: str, network: nn.Module, device: torch.device, **shown: Any) -> Extractor:
    network.eval().requires_grad_(False)
    checksum = weights_checksum(network)
    network.to(device, memory_format=torch.channels_last)
    side = shown["side"]
    return Extractor(
        name=f"{name} at {side} x {side}",
        checksum=checksum,
        forward=lambda images: network(scaled(images, **shown)),
        device=device,
    )


def scaled(images: Tensor, *, side: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return images resized and normalized for a network.

    Args:
        images: uint8 [n, C, H, W].
        side: height and width wanted.
        mean, std: of each channel, of values 0 to 1.

    Returns:
        float32 [n, C, side, side].
    """
    pixels = images.float() / 255
    if images.shape[-2:] != (side, side):
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    shape = (1, -1, 1, 1)
    mean_, std_ = (torch.tensor(values, device=images.device).view(shape) for values in (mean, std))
    return ((pixels - mean_) / std_).contiguous(memory_format=torch.channels_last)


def _smooth_noise() -> np.ndarray:
    """Return images of 8 x 8 random grey levels, uint8 [32, 1, 8, 8]."""
    levels = uniform(SEED, Stream.METRIC, range(_PROBE), (1, 8, 8), step=1)
    return (levels * 256).astype(np.uint8)


@torch.no_grad()
def _randomize(network: nn.Module) -> None:
    for index, (name, parameter) in enumerate(network.named_parameters()):
        if parameter.ndim > 1:
            scale = (2 / parameter[0].numel()) ** 0.5
            drawn = normal(SEED, Stream.METRIC, [index], tuple(parameter.shape))[0]
            parameter.copy_(torch.from_numpy(drawn) * scale)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
