"""Inference of a network: logits, and the features before its last layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from gemix.classifier.normalization import Normalization

BATCH = 64  # fixed, so that the same images always give the same numbers


def predict_logits(network: nn.Module, normalization: Normalization, images: np.ndarray) -> Tensor:
    """Return the logits of images, in evaluation mode and without gradients.

    Args:
        network: on any device; it is left in evaluation mode.
        normalization: of its training set.
        images: 0 to 255, [N, C, H, W], N at least 1.

    Returns:
        float32 [N, K] on the network's device.
    """
    return _predict(network, network, normalization, images)


def predict_features(
    network: nn.Module, normalization: Normalization, images: np.ndarray
) -> Tensor:
    """Return the features before the last layer of a timm model, float32 [N, D]; else as above."""

    def forward(batch: Tensor) -> Tensor:
        return network.forward_head(network.forward_features(batch), pre_logits=True)

    return _predict(forward, network, normalization, images)


def _predict(
    forward: Callable[[Tensor], Tensor],
    network: nn.Module,
    normalization: Normalization,
    images: np.ndarray,
) -> Tensor:
    device = next(network.parameters()).device
    network.eval()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            pixels = torch.tensor(images[start : start + BATCH], device=device)
            batch = normalization(pixels).contiguous(memory_format=torch.channels_last)
            rows.append(forward(batch).float())
    return torch.cat(rows)
