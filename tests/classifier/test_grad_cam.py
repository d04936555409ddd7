"""Grad-CAM: a planted network, networks of timm, and those that have no map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gemix.classifier.grad_cam import grad_cam
from gemix.classifier.models import ModelSpec, build
from gemix.classifier.normalization import Normalization
from gemix.core.errors import DataError

pytest.importorskip("captum")

PLAIN = Normalization(mean=(0.0,), std=(1.0,))


class CornerStage(nn.Module):
    """Cells of 4 x 4 pixels: channel 0 sees the bottom right corner alone, 1 the top left one."""

    def __init__(self):
        super().__init__()
        self.mask = nn.Parameter(torch.zeros(2, 8, 8))
        with torch.no_grad():
            self.mask[0, -2:, -2:] = self.mask[1, :2, :2] = 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(images, 4) * self.mask


class CornerNetwork(nn.Module):
    """The logit of class k is the mean of channel k."""

    feature_info = ({"module": "stage", "num_chs": 2, "reduction": 4},)

    def __init__(self):
        super().__init__()
        self.stage = CornerStage()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.stage(images).mean(dim=(2, 3))


def test_a_map_peaks_where_a_planted_network_looks():
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32), dtype=np.uint8)
    found = grad_cam(CornerNetwork(), PLAIN, images, np.array([1, 0]))
    assert (found.layer, found.cells, found.maps.shape) == ("stage", (8, 8), (2, 32, 32))
    np.testing.assert_allclose(found.maps.max(axis=(1, 2)), 1)
    assert found.maps.min() >= 0
    for image, corner in zip(found.maps, (np.s_[:8, :8], np.s_[-8:, -8:]), strict=True):
        assert image[corner].max() == 1
        elsewhere = image.copy()
        elsewhere[:10, :10] = elsewhere[-10:, -10:] = 0  # as far as interpolation reaches
        assert not elsewhere.any()
    assert not found.maps[0, -10:, -10:].any() and not found.maps[1, :10, :10].any()


def test_a_map_of_a_class_that_nothing_speaks_for_is_black():
    class Against(CornerNetwork):
        def forward(self, images):
            return -super().forward(images)

    found = grad_cam(Against(), PLAIN, np.full((1, 1, 32, 32), 99, np.uint8), np.array([1]))
    assert not found.maps.any()


@pytest.mark.parametrize(
    ("model", "layer"),
    [("test_resnet", "layer2"), ("test_convnext", None), ("resnet10t", "layer2")],
)
def test_the_layer_is_the_last_stage_that_is_not_a_single_cell(model, layer):
    network = build(ModelSpec(model=model, classes=3, channels=1, resolution=32))
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32), dtype=np.uint8)
    found = grad_cam(network, PLAIN, images, np.array([0, 2]))
    assert layer is None or (found.layer, found.cells) == (layer, (4, 4))
    assert found.maps.shape == (2, 32, 32) and np.isfinite(found.maps).all()


def test_a_transformer_has_no_map():
    network = build(ModelSpec(model="test_vit", classes=3, channels=1, resolution=32))
    with pytest.raises(DataError, match="VisionTransformer has no stage of 4 x 4 cells"):
        grad_cam(network, PLAIN, np.zeros((1, 1, 32, 32), np.uint8), np.array([0]))
