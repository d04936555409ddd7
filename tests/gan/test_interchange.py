"""Networks of public pickles compute here what they compute there, or are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gemix.core.errors import CheckpointError
from gemix.gan.importers.network_pickle import read_network_pickle
from gemix.gan.importers.stylegan2 import import_networks
from gemix.gan.models.architecture import Architecture
from gemix.gan.models.bias_act import Activation, bias_act
from gemix.gan.models.discriminator import Discriminator
from gemix.gan.models.generator import Generator
from gemix.gan.models.layers import Conv2dLayer, SynthesisLayer, ToRGBLayer
from tests.public_pickle import PublicModule, dump, public_networks

SIZES = {"z_dim": 12, "w_dim": 16, "mapping_layers": 2, "d_mapping_layers": 2, "channel_max": 16}
ARCHITECTURES = {
    "rgb": Architecture(
        resolution=16,
        img_channels=3,
        label_dim=0,
        channel_base=160,
        **SIZES | {"d_mapping_layers": 8},
    ),
    "grey": Architecture(
        resolution=8, img_channels=1, label_dim=3, channel_base=72, conv_clamp=256, **SIZES
    ),
    "rgba": Architecture(
        resolution=32, img_channels=4, label_dim=2, channel_base=256, mbstd_group_size=8, **SIZES
    ),
}


def networks(architecture: Architecture) -> tuple[Generator, Discriminator]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pair = Generator(architecture), Discriminator(architecture)
        with torch.no_grad():
            for network in pair:
                for weight in network.parameters():
                    if weight.ndim < 2:
                        weight.add_(0.3 * torch.randn_like(weight))
            pair[0].mapping.w_avg.normal_()
    return pair


@pytest.fixture(scope="module")
def grey() -> tuple[Generator, Discriminator]:
    return networks(ARCHITECTURES["grey"])


def imported(data: bytes):
    return import_networks(read_network_pickle(data))


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize(("protocol", "zip_storages"), [(3, False), (4, True)])
def test_architecture_and_weights_come_out_as_they_are(kind, protocol, zip_storages):
    generator, discriminator = networks(ARCHITECTURES[kind])
    content = public_networks(generator, discriminator)
    architecture, weights = imported(dump(content, protocol=protocol, zip_storages=zip_storages))
    assert architecture == ARCHITECTURES[kind]
    for expected, found in [
        (generator.state_dict(), weights.generator_ema),
        (discriminator.state_dict(), weights.discriminator),
    ]:
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    half = generator.synthesis.b4.const / 2
    assert torch.equal(weights.generator["synthesis.b4.const"], half)


def test_a_generator_alone_can_be_imported(grey):
    architecture, weights = imported(dump({"G_ema": public_networks(grey[0])["G_ema"]}))
    assert weights.discriminator is None and architecture.mbstd_group_size == 4
    assert torch.equal(weights.generator["mapping.w_avg"], grey[0].mapping.w_avg)


def test_networks_may_be_one_object(grey):
    content = public_networks(*grey)
    content["G"] = content["G_ema"]
    _, weights = imported(dump(content))
    assert weights.generator.keys() == weights.generator_ema.keys() == grey[0].state_dict().keys()
    for state in (weights.generator, weights.generator_ema):
        for key, value in grey[0].state_dict().items():
            assert torch.equal(state[key], value)


def test_networks_may_share_modules_and_layers_may_share_tensors(grey):
    content = public_networks(*grey)
    raw, ema = (content[name].state["_modules"] for name in ("G", "G_ema"))
    raw["mapping"] = ema["mapping"]
    layers = ema["synthesis"].state["_modules"]["b8"].state["_modules"]
    filters = [layers[name].state["_buffers"] for name in ("conv0", "conv1")]
    filters[1]["resample_filter"] = filters[0]["resample_filter"]
    _, weights = imported(dump(content))
    for key, value in grey[0].state_dict().items():
        assert torch.equal(weights.generator_ema[key], value)
    assert torch.equal(weights.generator["mapping.w_avg"], grey[0].mapping.w_avg)


def test_conv_clamp_bounds_every_convolution_layer(monkeypatch):
    bound = 0.5
    free = Architecture(resolution=16, img_channels=3, label_dim=0, channel_base=160, **SIZES)
    generator, discriminator = networks(free)
    z = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    before = generator(z, None, generator.noise_const())
    changes = {}
    for name, network in [("G", generator), ("G_ema", generator), ("D", discriminator)]:
        for path, layer in network.named_modules():
            bounded = isinstance(layer, (SynthesisLayer, ToRGBLayer, Conv2dLayer))
            if bounded and not path.endswith("skip"):
                changes[f"{name}.{path}"] = {"conv_clamp": bound}
    content = public_networks(generator, discriminator, changes=changes)
    architecture, weights = imported(dump(content))
    ours, judge = Generator(architecture), Discriminator(architecture)
    ours.load_state_dict(weights.generator_ema)
    judge.load_state_dict(weights.discriminator)
    images = ours(z, None, ours.noise_const())
    logits = judge(images, None)

    def bounded_bias_act(x, activation, *, styles=None, residual=None, **before):
        x = bias_act(x, activation, **before)
        if activation.slope != 1:  # in the discriminator a layer's gain scales the bound too
            x = x.clamp(-bound * activation.gain / 2**0.5, bound * activation.gain / 2**0.5)
        return bias_act(x, Activation(), styles=styles, residual=residual)

    monkeypatch.setattr("gemix.gan.models.layers.bias_act", bounded_bias_act)
    for layer in generator.modules():
        if isinstance(layer, ToRGBLayer):
            layer.register_forward_hook(lambda layer, given, image: image.clamp(-bound, bound))
    expected = generator(z, None, generator.noise_const())
    assert (expected - before).abs().max() > 0.1
    torch.testing.assert_close(images, expected)
    torch.testing.assert_close(logits, discriminator(expected, None))


def test_a_mapping_of_another_learning_rate_computes_the_same(grey):
    content = public_networks(grey[0])["G_ema"]
    for name, layer in content.state["_modules"]["mapping"].state["_modules"].items():
        if name.startswith("fc"):
            layer.state["bias_gain"] = 0.1
            for weight in layer.state["_parameters"].values():
                weight.data = weight / 10
    _, weights = imported(dump({"G_ema": content}))
    for key, value in grey[0].state_dict().items():
        torch.testing.assert_close(weights.generator_ema[key], value)


def test_minibatch_groups_of_the_whole_batch(grey):
    changes = {"D.b4.mbstd": {"group_size": None}}
    architecture, weights = imported(dump(public_networks(*grey, changes=changes)))
    of_six = Discriminator(ARCHITECTURES["grey"])
    of_six.b4.mbstd.group_size = 6
    ours = Discriminator(architecture)
    for network in (of_six, ours):
        network.load_state_dict(weights.discriminator)
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.eye(3).repeat(2, 1)
    assert torch.equal(ours(images, labels), of_six(images, labels))


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("G_ema.synthesis.b8", {"architecture": "resnet"}, "architecture 'resnet'.*'skip'"),
        ("D.b8", {"architecture": "orig"}, "architecture 'orig'.*'resnet'"),
        ("G.mapping.fc1", {"activation": "linear"}, "activation 'linear'"),
        ("D.b4.conv", {"activation": "relu"}, "activation 'relu'"),
        ("G_ema.synthesis.b8.conv0", {"use_noise": False}, "use_noise False"),
        ("D.b4.mbstd", {"num_channels": 2}, "num_channels 2"),
        ("D.b4.mbstd", {"group_size": "all"}, "group_size 'all'"),
        ("G_ema.mapping.fc0", {"bias_gain": 0}, "bias_gain 0"),
        ("D.b8.conv0", {"conv_clamp": 8}, "conv_clamp"),
        ("G_ema.synthesis.b8", {"resample_filter": torch.eye(4) / 4}, "another filter"),
        ("G_ema.synthesis.b8", {"surplus": torch.ones(2)}, r"b8.surplus is \[2\], want missing"),
        ("D.b8.conv0", {"bias": torch.ones(5)}, r"D do not fit.*bias is \[5\], want \[9\]"),
        ("G_ema.synthesis.b8.conv1", {"weight": torch.ones(3, 7, 3, 3)}, "do not fit|channels"),
    ],
)
def test_other_networks_are_refused(grey, path, change, message):
    with pytest.raises(CheckpointError, match=message):
        imported(dump(public_networks(*grey, changes={path: change})))


def test_stylegan3_is_named(grey):
    empty = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    changes = {"G_ema.synthesis": {"input": PublicModule(empty | {"freqs": np.ones(3)})}}
    with pytest.raises(CheckpointError, match="StyleGAN3"):
        imported(dump(public_networks(*grey, changes=changes)))
