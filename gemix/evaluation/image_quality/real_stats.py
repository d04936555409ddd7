"""Statistics of the real images that the metrics compare with, computed once and cached."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from torch import Tensor

from gemix.evaluation.image_quality.base import wrap_metric_errors
from gemix.evaluation.image_quality.registry import IMAGE_METRICS
from gemix.io.storage import Store

_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RealStats:
    """Features of the real images and the statistics that the metrics derive from them.

    Attributes:
        arrays: `features`, float32 [N, D] with rows in random order, and what each metric's
            :meth:`~gemix.evaluation.image_quality.base.ImageMetric.real_statistics` returns.
    """

    arrays: Mapping[str, Tensor]

    @property
    def features(self) -> Tensor:
        """Features of the real images, float32 [N, D]."""
        return self.arrays["features"]

    @classmethod
    def of(cls, features: Tensor, known: Mapping[str, Tensor] | None = None) -> Self:
        """Compute the statistics of features [N, D], except those that are known.

        Raises:
            ImageMetricError: naming the metric that fails.
        """
        arrays = {"features": features, **(known or {})}
        for metric in IMAGE_METRICS:
            if not arrays.keys() >= set(metric.statistics):
                with wrap_metric_errors(metric):
                    arrays |= metric.real_statistics(features)
        return cls(arrays=arrays)

    def save(self, store: Store, name: str) -> None:
        """Write one .npz file."""
        stream = io.BytesIO()
        np.savez(stream, **{key: value.cpu().numpy() for key, value in self.arrays.items()})
        store.write_bytes(name, stream.getvalue())

    @classmethod
    def load(cls, store: Store, name: str, device: torch.device) -> Self | None:
        """Read the file; None if that fails for any reason, since it can be made again."""
        try:
            if not store.exists(name):
                return None
            with np.load(io.BytesIO(store.read_bytes(name)), allow_pickle=False) as arrays:
                read = {key: torch.from_numpy(arrays[key]).to(device) for key in arrays.files}
            return cls.of(read.pop("features"), read)
        except Exception:  # a damaged zip file fails in many ways
            return None


def real_stats_name(digest: str, extractor: str, images: int) -> str:
    """Return the name of the cached file: unique to image set, extractor and number of images.

    Args:
        digest: of the image set.
        extractor: its name and full checksum.
        images: how many real images.
    """
    key = f"{_VERSION}:{digest}:{extractor}:{images}"
    return f"real-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
