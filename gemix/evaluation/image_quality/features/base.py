"""The interface of a feature extractor: images to features."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from gemix.core.errors import ConfigError, DataError
from gemix.io.storage import Store

_BATCH = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extractor:
    """A feature extractor. Metrics of different extractors cannot be compared.

    :mod:`gemix.evaluation.image_quality.features.testing` holds its contract.

    Attributes:
        name: everything that decides its features except the weights.
        checksum: SHA-256 of the weights or the file, hex.
        forward: from RGB images, uint8 [n, 3, H, W] on `device`, to features [n, D].
        device: where it runs.
    """

    name: str
    checksum: str
    forward: Callable[[Tensor], Tensor]
    device: torch.device

    @property
    def identity(self) -> str:
        """Name and first digits of the checksum, which every metric is reported with."""
        return f"{self.name} ({self.checksum[:12]})"

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> Tensor:
        """Return the features of images, batch by batch.

        Args:
            images: uint8 [N, C, H, W] with C of 1 or 3, N at least 1.

        Returns:
            float32 [N, D] on `device`.

        Raises:
            ConfigError: if the network returns anything but one row of finite numbers an image.
        """
        parts = []
        for start in range(0, len(images), _BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH]))
            features = self.forward(batch.to(self.device).expand(-1, 3, -1, -1))
            parts.append(self._checked(features, len(batch)))
        return torch.cat(parts)

    def _checked(self, features: Tensor, count: int) -> Tensor:
        good = features.ndim == 2 and len(features) == count and features.is_floating_point()
        if not good or not features.isfinite().all():
            raise ConfigError(
                f"metrics.extractor {self.name}: returned {list(features.shape)} {features.dtype} "
                f"for {count} images; want one row of finite numbers an image, so choose another "
                "extractor"
            )
        return features.float().clone()


def weights_checksum(network: nn.Module) -> str:
    """Return the SHA-256 of all weights and buffers with their names, hex."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read_model_file(kind: str, path: str) -> tuple[bytes, str]:
    """Return the content of a model file, and the extractor's name: kind and file name.

    Raises:
        ConfigError: if it cannot be read.
    """
    try:
        store, name = Store.of_file(path)
        return store.read_bytes(name), f"{kind}:{name.rpartition('/')[2]}"
    except DataError as error:
        raise ConfigError(f"metrics.extractor {kind}: {error}; correct the path") from error
