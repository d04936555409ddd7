"""Inference of a network."""

from __future__ import annotations

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
    device = next(network.parameters()).device
    network.eval()
    logits = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            rows = torch.tensor(images[start : start + BATCH], device=device)
            batch = normalization(rows).contiguous(memory_format=torch.channels_last)
            logits.append(network(batch).float())
    return torch.cat(logits)
