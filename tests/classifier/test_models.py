"""Networks by name, and what they are fed."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from gemix.classifier.config import ClassifierConfig
from gemix.classifier.models import ModelSpec, build, check_model
from gemix.classifier.normalization import Normalization
from gemix.core.errors import ConfigError


def spec(model: str, **changes: int) -> ModelSpec:
    return ModelSpec(model=model, **{"classes": 3, "channels": 1, "resolution": 64} | changes)


@pytest.mark.parametrize("model", ["test_resnet", "efficientnet_b0", "test_vit"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_timm_network_takes_our_images(model, channels):
    network = build(spec(model, channels=channels)).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, channels, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize("model", ["resnt50", "hf-hub:timm/resnet50", "../resnet50", ""])
def test_an_unknown_name_is_refused(model):
    with pytest.raises(ConfigError, match="timm has no model of that name"):
        build(spec(model))


def test_the_nearest_name_is_offered():
    with pytest.raises(ConfigError, match=r"did you mean .*resnet50"):
        build(spec("resnt50"))


def test_weights_come_from_a_safetensors_file(tmp_path):
    torch.manual_seed(0)
    source = timm.create_model("test_resnet")
    path = str(tmp_path / "w.safetensors")
    safetensors.torch.save_file(source.state_dict(), path)
    network = build(spec("test_resnet", channels=3), weights=path)
    ours, theirs = network.state_dict(), source.state_dict()
    different = {name for name in ours if not torch.equal(ours[name], theirs[name])}
    assert different == {"fc.weight", "fc.bias"}
    grey = build(spec("test_resnet"), weights=path).state_dict()
    torch.testing.assert_close(
        grey["conv1.0.weight"], theirs["conv1.0.weight"].sum(dim=1, keepdim=True)
    )


def test_weights_that_are_missing_or_do_not_fit_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.safetensors"):
        build(spec("test_resnet"), weights=str(tmp_path / "absent.safetensors"))
    path = str(tmp_path / "other.safetensors")
    safetensors.torch.save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ConfigError, match=r"other\.safetensors.*belongs to another model"):
        build(spec("test_resnet"), weights=path)
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


@pytest.mark.parametrize("model", ["test_resnet", "test_vit"])
def test_a_network_that_takes_the_images_passes_without_drawing(model):
    state = torch.get_rng_state()
    check_model(model, channels=1, resolution=32)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("model", ["inception_v3", "convnext_tiny"])
def test_images_that_are_too_small_for_a_network_are_refused_before_a_training(model):
    with pytest.raises(
        ConfigError, match=rf"{model} for 1 x 16 x 16 images.*larger data\.resolution"
    ):
        check_model(model, channels=1, resolution=16)


def test_an_unknown_network_is_refused_before_a_training():
    with pytest.raises(ConfigError, match=r"did you mean .*resnet50"):
        check_model("resnt50", channels=1, resolution=64)
