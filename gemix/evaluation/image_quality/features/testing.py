"""The contract of a feature extractor, as a test class to subclass (pytest collects it)::

class TestMyExtractor(FeatureExtractorContract):
    def open(self, device):
        return open_extractor("mine:weights.bin", self.resolution, device)
"""

from __future__ import annotations

import numpy as np
import torch

from gemix.evaluation.image_quality.features.base import Extractor


class FeatureExtractorContract:
    """Contract of a feature extractor; subclass it and override :meth:`open`.

    Attributes:
        resolution: of the images to extract from.
    """

    resolution: int = 32

    def open(self, device: torch.device) -> Extractor:
        """Open the extractor under test; it is called repeatedly."""
        raise NotImplementedError

    def images(self, count: int, *, channels: int = 1, side: int | None = None) -> np.ndarray:
        """Return random images, uint8 [count, channels, side, side]."""
        side = side or self.resolution
        rng = np.random.default_rng(0)
        return rng.integers(0, 256, (count, channels, side, side), dtype=np.uint8)

    def test_features_are_rows_of_finite_numbers(self) -> None:
        """There is one float32 row an image, on the device and without a graph."""
        device = torch.device("cpu")
        features = self.open(device)(self.images(70))
        assert features.dtype == torch.float32 and features.ndim == 2 and len(features) == 70
        assert features.device == device and features.isfinite().all()
        assert not features.requires_grad and not features.is_inference()
        assert features.std(dim=0).max() > 0

    def test_features_depend_on_the_image_alone(self) -> None:
        """Batch, place and earlier calls make no difference."""
        extractor, images = self.open(torch.device("cpu")), self.images(70)
        features = extractor(images)
        torch.testing.assert_close(extractor(images[65:]), features[65:], rtol=1e-4, atol=1e-4)
        assert torch.equal(extractor(images), features)

    def test_channels_and_sizes_are_free(self) -> None:
        """Grey images equal three equal channels; any size has features of the same width."""
        extractor, images = self.open(torch.device("cpu")), self.images(8)
        features = extractor(images)
        torch.testing.assert_close(
            extractor(images.repeat(3, axis=1)), features, rtol=1e-4, atol=1e-4
        )
        other = extractor(self.images(2, side=self.resolution + 16))
        assert other.shape == (2, features.shape[1])

    def test_an_extractor_opened_again_is_the_same(self) -> None:
        """Name, checksum and features repeat; nothing is drawn that a training would draw."""
        device, images, state = torch.device("cpu"), self.images(8), torch.get_rng_state()
        first, again = self.open(device), self.open(device)
        assert first.identity == again.identity
        assert torch.equal(first(images), again(images))
        assert len(first.checksum) == 64 and first.checksum[:12] in first.identity
        assert torch.equal(torch.get_rng_state(), state)
