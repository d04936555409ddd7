"""Manifold mixup: features of a layer are mixed as the labels are, in training alone."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import timm
import torch
from torch import Tensor, nn

from gemix.classifier.augment.base import AugmentContext
from gemix.classifier.augment.mixing import manifold_mixup as module
from gemix.classifier.augment.mixing.manifold_mixup import draw_layer, manifold_mixup, stages
from gemix.classifier.augment.registry import load_augmentation
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.models import check_model
from gemix.classifier.train import train
from gemix.core.errors import ConfigError

PARTNERS = [2, 0, 3, 1]
WEIGHTS = [0.25, 1.0, 0.5, 0.75]
# small networks of the three families, with the stages of each that are mixed
STAGES = {
    "test_resnet": ["act1", "layer1", "layer2"],
    "test_convnext": ["stages.0", "stages.1"],
    "vit_tiny_patch16_224": [f"blocks.{number}" for number in range(6)],
}


@pytest.fixture(scope="module", params=STAGES)
def network(request) -> nn.Module:
    sized = {"img_size": 32} if request.param.startswith("vit") else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(request.param, in_chans=1, num_classes=3, **sized).eval()


@pytest.fixture
def by_hand(monkeypatch) -> None:
    """Fixed weights and partners."""
    drawn = torch.tensor(WEIGHTS), torch.tensor(PARTNERS)
    monkeypatch.setattr(module, "weighted_pairs", lambda context, alpha, device: drawn)


def context(step: int = 0, count: int = 4, **changes) -> AugmentContext:
    settings = {"seed": 0, "step": step, "batch_indices": range(count), "horizontal_flip": False}
    return AugmentContext(**settings | changes)


def images() -> Tensor:
    return torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def step_of_layer(layer: int, layers: int) -> AugmentContext:
    return next(c for c in map(context, range(500)) if draw_layer(c, layers) == layer)


def mixed_by_hand(values: Tensor) -> Tensor:
    rows = [
        weight * values[i] + (1 - weight) * values[j]
        for i, (weight, j) in enumerate(zip(WEIGHTS, PARTNERS, strict=True))
    ]
    return torch.stack(rows)


def seen(network: nn.Module, name: str, context: AugmentContext | None = None) -> Tensor:
    """Return the features that a stage passes on, with or without hooks."""
    found = []
    hooked = manifold_mixup.hooked(network, context) if context else torch.no_grad()
    with torch.no_grad(), hooked:
        stage = network.get_submodule(name)
        with stage.register_forward_hook(lambda m, inputs, features: found.append(features)):
            network(images())
    return found[0]


def test_labels_are_mixed_and_images_are_left_to_the_pass(by_hand):
    targets = torch.eye(4)
    same, labels = manifold_mixup(images(), targets, context())
    assert torch.equal(same, images())
    wanted = [[0.25, 0, 0.75, 0], [0, 1, 0, 0], [0, 0, 0.5, 0.5], [0, 0.25, 0, 0.75]]
    assert labels.tolist() == wanted


def test_features_of_the_layer_are_mixed_as_labels_are(network, by_hand):
    names = stages(network)
    assert names == STAGES[network.pretrained_cfg["architecture"]]
    for number, name in enumerate(names, start=1):
        chosen = step_of_layer(number, 1 + len(names))
        torch.testing.assert_close(seen(network, name, chosen), mixed_by_hand(seen(network, name)))
        for earlier in names[: number - 1]:
            torch.testing.assert_close(seen(network, earlier, chosen), seen(network, earlier))


def test_layer_0_is_mixup_of_the_input(network, by_hand):
    chosen = step_of_layer(0, 1 + len(stages(network)))
    with torch.no_grad():
        with manifold_mixup.hooked(network, chosen):
            found = network(images())
        torch.testing.assert_close(found, network(mixed_by_hand(images())))


def test_the_layer_is_that_of_the_step_and_each_is_drawn():
    drawn = [draw_layer(context(step), 4) for step in range(400)]
    assert all(70 < drawn.count(layer) < 130 for layer in range(4))
    others = [draw_layer(context(step, batch_indices=(5, 9)), 4) for step in range(400)]
    assert drawn == others  # another worker's share of the same step
    assert drawn != [draw_layer(context(step, seed=1), 4) for step in range(400)]


def test_the_pass_mixes_with_the_weights_of_the_labels(network):
    """Images of level i with label i: the mean of a mixed image is that of its label."""
    layers = 1 + len(stages(network))
    steps = (step for step in range(500) if draw_layer(context(step, stage=1), layers) == 0)
    chosen, chain = context(next(steps)), load_augmentation("none+manifold-mixup")
    levels = torch.arange(4.0)
    shown = levels.view(-1, 1, 1, 1).expand(4, 1, 32, 32)
    _, labels = chain(shown, torch.eye(4), chosen)
    found = []
    with (
        torch.no_grad(),
        chain.hooked(network, chosen),
        network.register_forward_pre_hook(lambda m, inputs: found.append(inputs[0])),
    ):
        network(shown)
    torch.testing.assert_close(found[0].mean(dim=(1, 2, 3)), labels @ levels)
    assert not torch.equal(labels, torch.eye(4))


class Broken(nn.Module):
    """A network whose stages are as asked."""

    def __init__(self, infos: list[str], calls: int = 1, output=lambda x: x):
        super().__init__()
        self.stem, self.calls, self.output = nn.Identity(), calls, output
        self.stem.forward = output
        self.feature_info = [{"module": name} for name in infos]

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.calls):
            self.stem(x)
        return x


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (nn.Flatten(), r"Flatten: .*timm names no stages"),
        (Broken([]), "timm names no stages"),
        (Broken(["stage9"]), "no stage stage9"),
        (Broken(["stem"], calls=0), "stage stem is called 0 times"),
        (Broken(["stem"], calls=2), "stage stem is called 2 times"),
        (Broken(["stem"], output=lambda x: (x, x)), "stage stem returns no tensor"),
        (Broken(["stem"], output=lambda x: x.repeat(2, 1, 1, 1)), "a row for each image"),
    ],
)
def test_the_first_pass_tells_that_a_network_will_not_do(network, said):
    for step in range(6):  # whichever layer is drawn
        refused = pytest.raises(ConfigError, match=rf"{said}.*choose another model")
        with refused, manifold_mixup.hooked(network, context(step)):
            network(images())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_a_network_without_usable_stages_is_refused_before_a_training():
    with pytest.raises(ConfigError, match=r"pit_ti_224: its features cannot be mixed.*mixup for"):
        check_model("pit_ti_224", channels=1, resolution=64, augment="ct+manifold-mixup")
    check_model("pit_ti_224", channels=1, resolution=64, augment="ct+mixup")
    check_model("test_resnet", channels=1, resolution=32, augment="ct+manifold-mixup")


@pytest.fixture
def mixing(quick) -> ClassifierConfig:
    return dataclasses.replace(
        quick, model="test_convnext", augment="ct+manifold-mixup", epochs=1, epoch_images=36
    )


@pytest.fixture
def spied(monkeypatch) -> SimpleNamespace:
    """How many images or features were mixed at a time, and whether with gradients."""
    found = SimpleNamespace(counts=[], trained=[])
    real = module.mixed

    def mixed(values: Tensor, weight: Tensor, other: Tensor) -> Tensor:
        if values.ndim > 2:  # not labels
            found.counts.append(len(values))
            found.trained.append(torch.is_grad_enabled())
        return real(values, weight, other)

    monkeypatch.setattr(module, "mixed", mixed)
    return found


def accuracy(labels, predictions) -> dict[str, float]:
    return {"macro_f2": float((labels == predictions).mean())}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_training_pass_is_mixed_and_no_validation(image_set, mixing, spied, accumulate):
    config = dataclasses.replace(mixing, accumulate=accumulate)
    found = train(image_set("train", 60), image_set("val", 30, seed=1), config, accuracy)
    assert spied.counts == [12 // accumulate] * 3 * accumulate
    assert all(spied.trained)
    assert len(found.history) == 1  # validated too


def test_a_training_with_a_network_that_will_not_do_ends_at_its_first_pass(image_set, mixing):
    config = dataclasses.replace(mixing, model="pit_ti_224")
    sets = image_set("train", 12, size=64), image_set("val", 3, size=64)
    with pytest.raises(ConfigError, match=r"classifier\.model pit_ti_224"):
        train(*sets, config, accuracy)
