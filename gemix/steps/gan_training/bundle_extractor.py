"""Feature extractors from classifiers that gemix trained."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from gemix.classifier.bundle import Classifier
from gemix.core.errors import CheckpointError, ConfigError
from gemix.evaluation.image_quality.features.base import Extractor, weights_checksum
from gemix.io.storage import Store


def bundle_extractor(url: str, resolution: int, device: torch.device) -> Extractor:
    """Open a classifier as an extractor: the features before its last layer.

    Args:
        url: directory with a classifier, local or ``s3://``.
        resolution: not needed; images are resized to the classifier's own size.

    Raises:
        ConfigError: if there is no classifier.
    """
    try:
        classifier = Classifier.load(Store(url))
    except CheckpointError as error:
        raise ConfigError(f"metrics.extractor bundle: {error}") from error
    # PyTorch draws weights before they are loaded; a training must not notice
    with torch.random.fork_rng(devices=[]):
        network = classifier.network.to(device)
    channels, side = classifier.spec.channels, classifier.spec.resolution

    def forward(images: torch.Tensor) -> torch.Tensor:
        # grey images come as three equal channels, and a grey classifier takes the first
        pixels = images[:, :channels].float()
        if pixels.shape[-1] != side:
            pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
        batch = classifier.normalization(pixels).contiguous(memory_format=torch.channels_last)
        return network.forward_head(network.forward_features(batch), pre_logits=True)

    return Extractor(
        name=f"gemix classifier {classifier.spec.model} trained on {classifier.method} "
        f"images, seed {classifier.config.seed}, at {side} x {side}",
        checksum=weights_checksum(network),
        forward=forward,
        device=device,
    )
