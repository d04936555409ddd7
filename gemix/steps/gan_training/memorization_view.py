"""The memorization view: generated images beside the training images nearest to them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gemix.core.png import encode_png, tile
from gemix.evaluation.image_quality.features.base import Extractor
from gemix.evaluation.privacy.base import AuditSets
from gemix.evaluation.privacy.registry import AUDITS
from gemix.evaluation.privacy.thumbnails import downsampled_pixels
from gemix.steps.gan_training.real_images import RealImages

ROWS = 4  # of the first samples, and again of the nearest ones


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemorizationView:
    """A picture of samples with their neighbours, and the privacy audits.

    Attributes:
        png: one row a sample: the sample, its nearest training images by features,
            then those by pixels.
        summary: `by_features` and `by_pixels`, the values of the registered audits
            (:mod:`gemix.evaluation.privacy.registry`), null without held-out images;
            `samples` and `held_out`, how many were compared; `neighbors`, how many training
            images a row shows of each kind; `rows`, the number of each row's `sample` and
            `shown_as`: `first`, or `nearest` of the others.
    """

    png: bytes
    summary: dict[str, Any]


def memorization_view(
    extractor: Extractor,
    real: RealImages,
    real_features: Tensor,
    held_out: RealImages,
    fakes: np.ndarray,
    fake_features: Tensor,
) -> MemorizationView:
    """Search samples for copies of training images.

    Args:
        extractor: of all features.
        real: the training images, and `real_features` [N, D] of them.
        held_out: real images that were not trained on; it may be empty.
        fakes: samples, uint8 [M, C, H, W], and `fake_features` [M, D] of them.
    """
    device = real_features.device
    unseen = held_out.read(np.arange(len(held_out))) if len(held_out) else fakes[:0]
    spaces = {
        "by_features": AuditSets(
            training=real_features,
            held_out=extractor(unseen) if len(unseen) else fake_features[:0],
            samples=fake_features,
        ),
        "by_pixels": AuditSets(
            training=_thumbnails(real, device),
            held_out=downsampled_pixels(unseen, device) if len(unseen) else fake_features[:0],
            samples=downsampled_pixels(fakes, device),
        ),
    }
    audits = {space: _audit(sets) if len(unseen) else None for space, sets in spaces.items()}
    by_features = spaces["by_features"].sample_distances
    neighbor_rows = [sets.sample_neighbors[1] for sets in spaces.values()]
    first = list(range(min(ROWS, len(fakes))))
    closest = [i for i in by_features.argsort().tolist() if i not in first][:ROWS]
    shown = first + closest
    positions = torch.cat([rows[shown] for rows in neighbor_rows], dim=1).cpu().numpy()
    neighbors = real.read(positions.reshape(-1)).reshape(*positions.shape, *fakes.shape[1:])
    pictures = np.concatenate([fakes[shown][:, None], neighbors], axis=1)
    columns = pictures.shape[1]
    return MemorizationView(
        png=encode_png(tile(pictures.reshape(-1, *fakes.shape[1:]), columns)),
        summary=audits
        | {
            "samples": len(fakes),
            "held_out": len(held_out),
            "neighbors": (columns - 1) // 2,
            "rows": [
                {"sample": index, "shown_as": "first" if index in first else "nearest"}
                for index in shown
            ],
        },
    )


def _audit(sets: AuditSets) -> dict[str, float]:
    """Return the values of all registered audits."""
    return {name: value for audit in AUDITS for name, value in audit.compute(sets).items()}


def _thumbnails(real: RealImages, device: torch.device) -> Tensor:
    """Return the downsampled pixels of all images, by position."""
    found: Tensor | None = None
    for positions, images in real.chunks():
        part = downsampled_pixels(images, device)
        if found is None:
            found = part.new_empty(len(real), part.shape[1])
        found[torch.from_numpy(positions).to(device)] = part
    if found is None:
        raise ValueError("no real images")
    return found
