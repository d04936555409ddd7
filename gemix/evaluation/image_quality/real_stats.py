"""What the metrics need to know of the real images, computed once and kept in a file."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from typing import Self

import numpy as np
import torch
from torch import Tensor

from gemix.evaluation.image_quality.fid import Gaussian
from gemix.evaluation.image_quality.prdc import real_radii
from gemix.io.storage import Store

_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Features of the real images and what follows from them.

    Attributes:
        features: float32 [N, D], rows in an order without meaning.
        gaussian: their mean and covariance.
        radii: :func:`gemix.evaluation.image_quality.prdc.real_radii` of them.
    """

    features: Tensor
    gaussian: Gaussian
    radii: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """That of features [N, D]."""
        return cls(features=features, gaussian=Gaussian.of(features), radii=real_radii(features))

    def save(self, store: Store, name: str) -> None:
        """Writes one .npz file."""
        stream = io.BytesIO()
        arrays = {
            "features": self.features,
            "mean": self.gaussian.mean,
            "factor": self.gaussian.factor,
            "radii": self.radii,
        }
        np.savez(stream, **{key: value.cpu().numpy() for key, value in arrays.items()})
        store.write_bytes(name, stream.getvalue())

    @classmethod
    def load(cls, store: Store, name: str, device: torch.device) -> Self | None:
        """Reads it back; None where it is not there or damaged, since it can be made again."""
        if not store.exists(name):
            return None
        try:
            with np.load(io.BytesIO(store.read_bytes(name)), allow_pickle=False) as arrays:
                read = {key: torch.from_numpy(arrays[key]).to(device) for key in arrays.files}
            return cls(
                features=read["features"],
                gaussian=Gaussian(mean=read["mean"], factor=read["factor"]),
                radii=read["radii"],
            )
        except Exception:  # a damaged zip file fails in many ways
            return None


def real_stats_name(digest: str, extractor: str, images: int) -> str:
    """The file of a reference: another for another image set, extractor or number of images.

    Args:
        digest: of the image set.
        extractor: its name and full checksum.
        images: how many real images.
    """
    key = f"{_VERSION}:{digest}:{extractor}:{images}"
    return f"real-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
