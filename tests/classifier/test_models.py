"""Networks by name, and what they are fed."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from gemix.classifier.augment.ct import Normalization, augment
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.models import Architecture, build
from gemix.core.errors import ConfigError


def architecture(model: str, **changes: int) -> Architecture:
    return Architecture(model=model, **{"classes": 3, "channels": 1, "resolution": 64} | changes)


@pytest.mark.parametrize("model", ["test_resnet", "efficientnet_b0", "test_vit"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_timm_network_takes_our_images(model, channels):
    network = build(architecture(model, channels=channels)).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, channels, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize("model", ["resnt50", "hf-hub:timm/resnet50", "../resnet50", ""])
def test_an_unknown_name_is_refused(model):
    with pytest.raises(ConfigError, match="timm has no model of that name"):
        build(architecture(model))


def test_the_nearest_name_is_offered():
    with pytest.raises(ConfigError, match=r"did you mean .*resnet50"):
        build(architecture("resnt50"))


def test_weights_come_from_a_safetensors_file(tmp_path):
    torch.manual_seed(0)
    source = timm.create_model("test_resnet")
    path = str(tmp_path / "w.safetensors")
    safetensors.torch.save_file(source.state_dict(), path)
    network = build(architecture("test_resnet", channels=3), weights=path)
    ours, theirs = network.state_dict(), source.state_dict()
    different = {name for name in ours if not torch.equal(ours[name], theirs[name])}
    assert different == {"fc.weight", "fc.bias"}
    grey = build(architecture("test_resnet"), weights=path).state_dict()
    torch.testing.assert_close(
        grey["conv1.0.weight"], theirs["conv1.0.weight"].sum(dim=1, keepdim=True)
    )


def test_weights_that_are_missing_or_do_not_fit_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.safetensors"):
        build(architecture("test_resnet"), weights=str(tmp_path / "absent.safetensors"))
    path = str(tmp_path / "other.safetensors")
    safetensors.torch.save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ConfigError, match=r"other\.safetensors.*belongs to another model"):
        build(architecture("test_resnet"), weights=path)
    with pytest.raises(ConfigError, match=r"weights: given 'w\.pth'"):
        ClassifierConfig(weights="w.pth")


def test_normalization_is_exact_and_per_channel():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(50, 3, 8, 8), dtype=np.uint8)
    images[:, 2] //= 4
    found = Normalization.of(images)
    np.testing.assert_allclose(found.mean, images.mean(axis=(0, 2, 3)) / 255)
    np.testing.assert_allclose(found.std, images.std(axis=(0, 2, 3)) / 255)
    shown = found(torch.from_numpy(images))
    assert shown.dtype == torch.float32
    torch.testing.assert_close(shown.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(shown.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    assert np.isfinite(Normalization.of(np.full((2, 1, 4, 4), 7, np.uint8)).std).all()


def blob(count: int) -> torch.Tensor:
    """A spot left of the middle."""
    images = torch.zeros(count, 1, 32, 32)
    images[:, :, 14:18, 6:10] = 4
    return images


def side(images: torch.Tensor) -> torch.Tensor:
    """Centre of the brightness along x, in pixels."""
    weights = (images - images.amin(dim=(2, 3), keepdim=True)).sum(dim=(1, 2))
    return (weights * torch.arange(32)).sum(dim=1) / weights.sum(dim=1)


def test_augmentation_is_light_and_never_mirrors_by_default():
    moved = augment(blob(200), seed=0, positions=range(200), step=0, horizontal_flip=False)
    places = side(moved)
    assert places.max() < 12 and places.std() > 0.4
    levels = moved.amin(dim=(1, 2, 3))
    assert 0.02 < levels.std() < 0.1
    flipped = augment(blob(200), seed=0, positions=range(200), step=0, horizontal_flip=True)
    share = (side(flipped) > 16).float().mean()
    assert 0.35 < share < 0.65


def test_augmentation_follows_the_place_in_the_global_batch():
    images = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    options = {"seed": 3, "horizontal_flip": False}
    whole = augment(images, positions=range(8), step=5, **options)
    odd = augment(images[1::2], positions=range(1, 8, 2), step=5, **options)
    torch.testing.assert_close(odd, whole[1::2])
    later = augment(images, positions=range(8), step=6, **options)
    assert not torch.allclose(later, whole)
