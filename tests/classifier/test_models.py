"""Networks by name, and what they are fed."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from gemix.classifier.augment.base import AugmentContext
from gemix.classifier.augment.registry import AUGMENTATIONS, MIXING, load_augmentation
from gemix.classifier.augment.testing import AugmentationContract
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


def blob(count: int) -> torch.Tensor:
    """A spot left of the middle."""
    images = torch.zeros(count, 1, 32, 32)
    images[:, :, 14:18, 6:10] = 4
    return images


def side(images: torch.Tensor) -> torch.Tensor:
    """Centre of the brightness along x, in pixels."""
    weights = (images - images.amin(dim=(2, 3), keepdim=True)).sum(dim=(1, 2))
    return (weights * torch.arange(32)).sum(dim=1) / weights.sum(dim=1)


def augment(images: torch.Tensor, *, name: str = "ct", batch_indices=None, **context):
    indices = range(len(images)) if batch_indices is None else batch_indices
    settings = {"seed": 0, "step": 0, "horizontal_flip": False} | context
    targets = torch.ones(len(images), 1)
    varied, same = load_augmentation(name)(
        images, targets, AugmentContext(batch_indices=indices, **settings)
    )
    assert torch.equal(same, targets)
    return varied


def test_augmentation_is_light_and_never_mirrors_by_default():
    moved = augment(blob(200))
    places = side(moved)
    assert places.max() < 12 and places.std() > 0.4
    levels = moved.amin(dim=(1, 2, 3))
    assert 0.02 < levels.std() < 0.1
    flipped = augment(blob(200), horizontal_flip=True)
    share = (side(flipped) > 16).float().mean()
    assert 0.35 < share < 0.65


def test_augmentation_follows_the_place_in_the_global_batch():
    images = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    whole = augment(images, seed=3, step=5)
    odd = augment(images[1::2], seed=3, step=5, batch_indices=range(1, 8, 2))
    torch.testing.assert_close(odd, whole[1::2])
    later = augment(images, seed=3, step=6)
    assert not torch.allclose(later, whole)


def test_ct_augmentation_does_not_change():
    images = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    varied = augment(images, seed=3, step=5)
    found = [varied[3, 0, 10, 10].item(), varied[5, 0, 4, 20].item()]
    assert found == pytest.approx([0.6111962, 0.6357806], abs=1e-6)


def test_none_mirrors_half_of_the_images_where_that_is_asked_for():
    images = blob(200)
    assert torch.equal(augment(images, name="none"), images)
    flipped = augment(images, name="none", horizontal_flip=True)
    mirrored = (flipped == images.flip(-1)).all(dim=(1, 2, 3))
    assert 0.35 < mirrored.float().mean() < 0.65
    assert torch.equal(flipped[~mirrored], images[~mirrored])


@pytest.mark.parametrize("name", AUGMENTATIONS)
class TestEveryAugmentation(AugmentationContract):
    @pytest.fixture(autouse=True)
    def _choose(self, name):
        self.augmentation = load_augmentation(name)
        self.mixes_images = name in MIXING


class TestTwoAugmentations(AugmentationContract):
    augmentation = staticmethod(load_augmentation("ct+cutmix"))
    mixes_images = True


def context(count: int) -> AugmentContext:
    return AugmentContext(seed=0, step=0, batch_indices=range(count), horizontal_flip=False)


def black_and_white(count: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of 0 with label [1, 0], then images of 1 with label [0, 1]."""
    is_white = (torch.arange(count) >= count // 2).float()
    images = is_white.view(-1, 1, 1, 1).expand(count, 1, 20, 20).contiguous()
    return images, torch.stack([1 - is_white, is_white], dim=1)


@pytest.mark.parametrize("name", ["none+mixup", "none+cutmix"])
@pytest.mark.parametrize("count", [64, 7])
def test_labels_follow_what_the_pixels_show(name, count):
    """The mean grey of an image of black and white parts is the label of white, odd batches too."""
    images, targets = black_and_white(count)
    mixed, labels = load_augmentation(name)(images, targets, context(count))
    torch.testing.assert_close(labels[:, 1], mixed.mean(dim=(1, 2, 3)), atol=1e-6, rtol=0)
    shares = labels[:, 1]
    assert ((shares > 0.02) & (shares < 0.98)).any()
    values = set(mixed.unique().tolist())
    assert values == {0.0, 1.0} if "cutmix" in name else len(values) > 2


def test_cutmix_leaves_half_of_the_images_alone_and_cuts_every_size():
    images, targets = black_and_white(2000)
    _, labels = load_augmentation("none+cutmix")(images, targets, context(2000))
    changed = labels.max(dim=1).values < 1
    # half are cut, half of the partners are of the other class, tiny boxes have no pixel
    assert 0.2 < changed.float().mean() < 0.28
    kept = labels[changed].amax(dim=1)
    assert kept.min() < 0.55 and kept.max() > 0.95


def test_mixup_draws_weights_of_the_published_distribution():
    """Beta(0.2, 0.2) has mean 1/2 and variance 1 / (4 (2 a + 1))."""
    from gemix.classifier.augment.pairs import beta

    weights = beta(torch.rand(20_000, generator=torch.Generator().manual_seed(0)), 0.2)
    assert weights.mean().item() == pytest.approx(0.5, abs=0.01)
    assert weights.var().item() == pytest.approx(1 / (4 * 1.4), abs=0.003)


def test_cutout_fills_a_square_of_half_the_side_with_the_mean():
    images = torch.ones(500, 1, 32, 32)
    filled, _ = load_augmentation("cutout")(images, torch.ones(500, 1), context(500))
    shares = (filled == 0).float().mean(dim=(1, 2, 3))
    assert shares.max().item() == pytest.approx(0.25)  # wholly inside
    assert shares.min().item() < 0.1  # in a corner


def test_trivial_augment_varies_images_without_a_global_generator():
    images = torch.randn(12, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    varied, _ = load_augmentation("trivial")(images, torch.ones(12, 1), context(12))
    changed = (varied - images).abs().amax(dim=(1, 2, 3)) > 0.1
    assert changed.sum() >= 6
    assert varied.min() >= images.min() - 1e-3 and varied.max() <= images.max() + 1e-3


@pytest.mark.parametrize("augment", ["cutmix", "mixup+ct", "ct+ct", "ct+cutmix+cutout", "magic"])
def test_chains_that_make_no_sense_are_refused(augment):
    with pytest.raises(ConfigError, match=r"augment.*cutmix and mixup second"):
        ClassifierConfig(augment=augment)


def test_mixed_images_have_no_weight_of_their_own():
    with pytest.raises(ConfigError, match=r"recipe.*another recipe beside cutmix"):
        ClassifierConfig(augment="ct+cutmix", recipe="weight")


def test_an_augmentation_that_breaks_the_contract_fails_it():
    class InPlace(AugmentationContract):
        @staticmethod
        def augmentation(images, targets, context):
            return images.add_(torch.randn_like(images)), targets

    with pytest.raises(AssertionError):
        InPlace().test_inputs_are_left_alone()
    with pytest.raises(AssertionError):
        InPlace().test_variation_follows_seed_and_step_alone()


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
