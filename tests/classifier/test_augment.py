"""Augmentations of the classifiers' images: the contract of each, and what it does to them."""

from __future__ import annotations

import pkgutil

import pytest
import torch

from gemix.classifier.augment.augmix import dirichlet
from gemix.classifier.augment.base import AugmentContext, FeatureAugmentation
from gemix.classifier.augment.geometric import move
from gemix.classifier.augment.mixing.pairs import beta
from gemix.classifier.augment.operations import (
    OPERATIONS,
    brightness,
    equalize,
    shear_y,
    translate_x,
    translate_y,
)
from gemix.classifier.augment.registry import AUGMENTATIONS, HOOKED, MIXING, load_augmentation
from gemix.classifier.augment.testing import AugmentationContract
from gemix.classifier.config import ClassifierConfig
from gemix.core.errors import ConfigError


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
    mirrored = augment(images, seed=3, step=5, horizontal_flip=True)
    found = [mirrored[2, 0, 10, 10].item(), mirrored[6, 0, 4, 20].item()]
    assert found == pytest.approx([0.5429293, 0.7155160], abs=1e-6)


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
    weights = beta(torch.rand(20_000, generator=torch.Generator().manual_seed(0)), 0.2)
    assert weights.mean().item() == pytest.approx(0.5, abs=0.01)
    assert weights.var().item() == pytest.approx(1 / (4 * 1.4), abs=0.003)


def test_cutout_fills_a_square_of_half_the_side_with_the_mean():
    images = torch.ones(500, 1, 32, 32)
    filled, _ = load_augmentation("cutout")(images, torch.ones(500, 1), context(500))
    shares = (filled == 0).float().mean(dim=(1, 2, 3))
    assert shares.max().item() == pytest.approx(0.25)  # wholly inside
    assert shares.min().item() < 0.1  # in a corner


def test_geometric_moves_turns_and_scales_within_its_limits():
    """A spot at the right of the middle: its way, its angle and its size tell what was done."""
    images = torch.zeros(400, 1, 64, 64)
    images[:, :, 28:36, 48:56] = 1
    moved = augment(images, name="geometric")
    assert moved.min() >= 0 and moved.max() <= 1 + 1e-5  # grey levels stay
    weights = moved[:, 0] / moved.sum(dim=(1, 2, 3)).view(-1, 1, 1)
    places = torch.arange(64) + 0.5 - 32
    x, y = (weights.sum(dim=1) * places).sum(dim=1), (weights.sum(dim=2) * places).sum(dim=1)
    # 20 pixels from the middle: 10 degrees are 3.5, 0.1 of the side 6.4, scales from 1 / 1.15 on
    assert x.min() > 10 and x.max() < 20 * 1.15 + 1.15 * 6.4 * 1.2
    assert 8 < y.abs().max() < 1.15 * (6.4 * 1.2 + 3.5)
    sizes = moved.sum(dim=(1, 2, 3)) / 64
    whole = (x < 24) & (y.abs() < 20)
    assert sizes[whole].max() < 1.15**2 * 1.05 and sizes.min() > 1.15**-2 * 0.95
    assert sizes[whole].std() > 0.08


def test_geometric_turns_about_the_middle():
    images = torch.zeros(1, 1, 33, 33)
    images[0, 0, 16, 26] = 1
    still = {"shift": torch.zeros(1, 2), "scale": torch.ones(1), "turn": torch.zeros(1)}
    torch.testing.assert_close(move(images, **still), images)
    turned = move(images, **still | {"turn": torch.tensor([torch.pi / 2])})
    assert turned[0, 0, 6, 16].item() == pytest.approx(1, abs=1e-4)
    shifted = move(images, **still | {"shift": torch.tensor([[2 / 33, 1 / 33]])})
    assert shifted[0, 0, 15, 24].item() == pytest.approx(1, abs=1e-4)
    halved = move(images, **still | {"scale": torch.tensor([2.0])})
    assert halved[0, 0, 16, 21].item() == pytest.approx(1, abs=1e-4)


def test_photometric_varies_grey_levels_and_keeps_places():
    images = torch.linspace(-1, 2, 32).expand(300, 1, 32, 32).contiguous()
    varied = augment(images, name="photometric")
    columns = varied.mean(dim=(1, 2))  # the noise averages out
    assert (columns.diff(dim=1) > -0.1).all()
    brightness = varied.mean(dim=(1, 2, 3)) - 0.5
    # gamma moves the mean too: of x^1.3 it is 1 / 2.3, of the range of 3
    assert 0.1 < brightness.std() < 0.25 and brightness.abs().max() < 0.2 + 3 * (1 / 1.769 - 0.5)
    contrast = columns.std(dim=1) / images[0, 0].mean(dim=0).std()
    assert 1 / 1.3 < contrast.min() < 0.9 and 1.1 < contrast.max() < 1.3
    noise = (varied - columns[:, None, None, :]).std(dim=(1, 2, 3))
    assert noise.min() < 0.01 and noise.max() == pytest.approx(0.1, abs=0.01)


def test_noise_is_the_same_in_all_channels():
    images = torch.linspace(-1, 2, 32).expand(6, 3, 32, 32).contiguous()
    varied = augment(images, name="photometric")
    torch.testing.assert_close(varied[:, 0], varied[:, 2])


def test_trivial_augment_varies_images_without_a_global_generator():
    images = torch.randn(12, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    varied, _ = load_augmentation("trivial")(images, torch.ones(12, 1), context(12))
    changed = (varied - images).abs().amax(dim=(1, 2, 3)) > 0.1
    assert changed.sum() >= 6
    assert varied.min() >= images.min() - 1e-3 and varied.max() <= images.max() + 1e-3


def picture() -> torch.Tensor:
    """Grey levels of a picture without symmetry, [1, 32, 32]."""
    image = torch.zeros(1, 32, 32)
    image[:, 6:20, 8:14] = 0.5
    image[:, 20:26, 12:28] = 1.0
    return image


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_operations_on_grey_levels_have_two_directions(operation):
    one, other = operation(picture(), 0.3), operation(picture(), -0.3)
    for varied in (one, other):
        assert varied.shape == picture().shape and varied.dtype == torch.float32
        assert varied.min() >= 0 and varied.max() <= 1
        assert not torch.allclose(varied, picture(), atol=0.01)
    assert torch.equal(one, other) == (operation is equalize)
    still = operation(picture(), 0.0)
    assert operation is equalize or torch.allclose(still, picture(), atol=1e-6)


def test_operations_move_as_far_as_they_say():
    image = torch.zeros(1, 33, 33)
    image[0, 16, 26] = 1
    assert translate_x(image, -1.0)[0, 16, 15].item() == pytest.approx(1, abs=1e-4)
    assert translate_y(image, 1.0)[0, 27, 26].item() == pytest.approx(1, abs=1e-4)
    assert shear_y(image, 1.0)[0, :, 26].argmax().item() in (13, 19)  # 10 pixels * 0.3
    grey = torch.full((1, 8, 8), 0.5)
    torch.testing.assert_close(brightness(grey, -1.0), 0.1 * grey)


def repeated_picture(count: int) -> torch.Tensor:
    """The same picture as normalized images, darkest -1 and brightest 2."""
    return (3 * picture() - 1).expand(count, 1, 32, 32).contiguous()


def test_randaugment_applies_two_operations_of_one_strength():
    images = repeated_picture(200)
    varied = augment(images, name="randaugment")
    single = [(lambda x, s: x), *OPERATIONS]
    ways = [(operation, sign * 0.3) for operation in single for sign in (1, -1)]
    once = [operation(picture(), strength) for operation, strength in ways]
    twice = [operation(image, strength) for image in once for operation, strength in ways]
    possible = 3 * torch.stack(twice) - 1
    distances = torch.cdist(varied.flatten(1), possible.flatten(1))
    assert distances.amin(dim=1).max() < 0.1  # of 1024 pixels together
    assert len(set(distances.argmin(dim=1).tolist())) > 80
    unchanged = (varied - images).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert unchanged.sum() < 10  # 1 in 100 by chance


def test_augmix_is_a_mean_of_the_image_and_of_chains(monkeypatch):
    """With one operation, a known one, the pixels tell the weight of what was varied."""
    monkeypatch.setattr("gemix.classifier.augment.augmix.OPERATIONS", (lambda x, s: 1 - x,))
    images = repeated_picture(2000)
    varied = (augment(images, name="augmix") + 1) / 3
    dark, bright = varied[:, 0, 0, 0], varied[:, 0, 22, 20]
    torch.testing.assert_close(dark + bright, torch.ones(2000), atol=1e-5, rtol=0)
    # (1 - m) times the weights of the chains of one or three operations, 2 in 3 of them
    assert dark.min() >= -1e-6 and dark.max() <= 1 + 1e-6
    assert dark.mean().item() == pytest.approx(0.5 * 2 / 3, abs=0.02)


def test_augmix_leaves_what_operations_leave(monkeypatch):
    monkeypatch.setattr("gemix.classifier.augment.augmix.OPERATIONS", (lambda x, s: x,))
    images = repeated_picture(8)
    torch.testing.assert_close(augment(images, name="augmix"), images)


def test_strengths_of_augmix_are_light_and_of_both_directions(monkeypatch):
    found = []
    spy = (lambda x, s: found.append(s) or x,)
    monkeypatch.setattr("gemix.classifier.augment.augmix.OPERATIONS", spy)
    augment(repeated_picture(100), name="augmix")
    assert 100 * 3 * 1.8 < len(found) < 100 * 3 * 2.2  # chains of 1 to 3
    assert 0.01 <= min(map(abs, found)) < 0.03 and 0.28 < max(map(abs, found)) <= 0.3
    assert 0.4 < sum(strength > 0 for strength in found) / len(found) < 0.6


def test_dirichlet_weights_are_those_of_the_flat_distribution():
    """Each is Beta(1, k - 1): mean 1 / 3 and variance 2 / (9 * 4) for three."""
    weights = dirichlet(torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(20_000))
    assert weights.mean(dim=0).tolist() == pytest.approx([1 / 3] * 3, abs=0.01)
    assert weights.var(dim=0).tolist() == pytest.approx([1 / 18] * 3, abs=0.002)
    assert dirichlet(torch.zeros(1, 3)).tolist() == [pytest.approx([1 / 3] * 3)]


@pytest.mark.parametrize(
    "augment",
    [
        *("cutmix", "manifold-mixup", "mixup+ct", "manifold-mixup+ct", "mixup+manifold-mixup"),
        *("ct+ct", "ct+cutmix+cutout", "magic", "ct+magic"),
    ],
)
def test_chains_that_make_no_sense_are_refused(augment):
    with pytest.raises(ConfigError, match=r"augment.*only second: cutmix, manifold-mixup, mixup"):
        ClassifierConfig(augment=augment)


@pytest.mark.parametrize("first", [name for name in AUGMENTATIONS if name not in MIXING])
def test_any_that_varies_single_images_goes_first_and_any_other_second(first):
    for augment in (first, *(f"{first}+{second}" for second in AUGMENTATIONS if second != first)):
        assert ClassifierConfig(augment=augment).augment == augment


@pytest.mark.parametrize("name", MIXING)
def test_mixed_images_have_no_weight_of_their_own(name):
    with pytest.raises(ConfigError, match=rf"recipe.*another recipe beside {name}"):
        ClassifierConfig(augment=f"ct+{name}", recipe="weight")
    ClassifierConfig(augment="ct+randaugment", recipe="weight")


def test_the_settings_know_which_augmentations_reach_into_the_network():
    found = {name: pkgutil.resolve_name(where) for name, where in AUGMENTATIONS.items()}
    reaching = [name for name, augment in found.items() if isinstance(augment, FeatureAugmentation)]
    assert tuple(reaching) == HOOKED


def test_an_augmentation_that_breaks_the_contract_fails_it():
    class InPlace(AugmentationContract):
        @staticmethod
        def augmentation(images, targets, context):
            return images.add_(torch.randn_like(images)), targets

    with pytest.raises(AssertionError):
        InPlace().test_inputs_are_left_alone()
    with pytest.raises(AssertionError):
        InPlace().test_variation_follows_seed_and_step_alone()
