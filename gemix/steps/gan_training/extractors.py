"""Opens the feature extractor that ``metrics.extractor`` names, gemix's own classifiers among them.

It stands above the parts of the library, which do not know each other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from gemix.core.errors import CheckpointError, ConfigError
from gemix.evaluation.image_quality.features.base import Extractor, weights_checksum
from gemix.evaluation.image_quality.features.file import onnx_extractor, torchscript_extractor
from gemix.evaluation.image_quality.features.timm import (
    pretrained_extractor,
    random_extractor,
)
from gemix.io.storage import Store


def open_extractor(spec: str, resolution: int, device: torch.device) -> Extractor:
    """The extractor of a ``<kind>:<what>``.

    Args:
        spec: as :class:`gemix.evaluation.image_quality.config.MetricsConfig` has it.
        resolution: height and width of the images that it will be shown.
        device: where it runs.

    Raises:
        ConfigError: if it cannot be had, with the remedy.
    """
    kind, _, what = spec.partition(":")
    match kind:
        case "timm":
            return pretrained_extractor(what, device)
        case "timm-random":
            return random_extractor(what, resolution, device)
        case "torchscript":
            return torchscript_extractor(what, device)
        case "onnx":
            return onnx_extractor(what, device)
        case "bundle":
            return bundle_extractor(what, device)
    raise ConfigError(f"metrics.extractor {spec}: unknown kind {kind!r}")


def bundle_extractor(url: str, device: torch.device) -> Extractor:
    """The features that a classifier trained by gemix decides by, before its last layer.

    Images of another size than the classifier's own are resized.

    Args:
        url: directory with a classifier, local or ``s3://``.

    Raises:
        ConfigError: if there is no classifier.
    """
    from gemix.classifier.bundle import Classifier  # needs timm, which is slow to import

    try:
        classifier = Classifier.load(Store(url))
    except CheckpointError as error:
        raise ConfigError(f"metrics.extractor bundle: {error}") from error
    # PyTorch draws weights before they are loaded; a training must not notice
    with torch.random.fork_rng(devices=[]):
        network = classifier.network.to(device)
    channels, side = classifier.architecture.channels, classifier.architecture.resolution

    def forward(images: torch.Tensor) -> torch.Tensor:
        # grey images come as three equal channels, and a grey classifier takes the first
        pixels = images[:, :channels].float()
        if pixels.shape[-1] != side:
            pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
        batch = classifier.normalization(pixels).contiguous(memory_format=torch.channels_last)
        return network.forward_head(network.forward_features(batch), pre_logits=True)

    return Extractor(
        name=f"gemix classifier {classifier.architecture.model} trained on {classifier.method} "
        f"images, seed {classifier.config.seed}, at {side} x {side}",
        checksum=weights_checksum(network),
        forward=forward,
        device=device,
    )
