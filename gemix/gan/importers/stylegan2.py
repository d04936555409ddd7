"""Convert state dictionaries and pickles of the public StyleGAN2-ADA to networks of gemix.

Parameters keep the names of the public networks. Activations, filters and clamps, which do not show
in shapes, are read from the layers' attributes; networks that gemix cannot compute are refused.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping

import torch
from torch import Tensor

from gemix.core.errors import CheckpointError
from gemix.gan.checkpoints.safetensors_io import validate_state_dict
from gemix.gan.checkpoints.transfer import PretrainedWeights
from gemix.gan.importers.network_pickle import PickledModule, Scalar
from gemix.gan.models import ops
from gemix.gan.models.architecture import Architecture
from gemix.gan.models.discriminator import Discriminator
from gemix.gan.models.fir import fir_filter
from gemix.gan.models.generator import MAPPING_LR_MULTIPLIER, Generator

MAX_RESOLUTION = 2**13  # eight times what the public networks make
WHOLE_BATCH = 2**16  # group size of the minibatch standard deviation, larger than any batch
LINEAR_LAYERS = ("affine", "embed", "out", "skip")


def architecture_of(
    g_state: Mapping[str, Tensor],
    d_state: Mapping[str, Tensor] | None = None,
    *,
    mbstd_group_size: int = 4,
    conv_clamp: float | None = None,
) -> Architecture:
    """Infer the architecture from the shapes of the weights.

    Args:
        g_state: generator weights (``mapping.*``, ``synthesis.*``).
        d_state: discriminator weights, or None.
        mbstd_group_size, conv_clamp: settings that do not show in the weights.

    Raises:
        CheckpointError: for weights of anything but a skip generator, or channels other than
            ``min(channel_base / resolution, channel_max)``.
    """
    if "synthesis.b4.const" not in g_state:
        raise CheckpointError("no weight synthesis.b4.const: not a StyleGAN2 skip generator")
    blocks = [4]
    while f"synthesis.b{2 * blocks[-1]}.conv1.weight" in g_state:
        blocks.append(2 * blocks[-1])
    if blocks[-1] > MAX_RESOLUTION:
        raise CheckpointError(
            f"a generator of {blocks[-1]} x {blocks[-1]} pixels; gemix imports up to "
            f"{MAX_RESOLUTION} x {MAX_RESOLUTION}"
        )
    try:
        channels = {r: g_state[f"synthesis.b{r}.conv1.weight"].shape[0] for r in blocks}
        img_channels = g_state[f"synthesis.b{blocks[-1]}.torgb.weight"].shape[0]
        w_dim = g_state["mapping.w_avg"].shape[0]
        inputs = g_state["mapping.fc0.weight"].shape[1]
        embed = g_state.get("mapping.embed.weight")
        embedded, label_dim = (0, 0) if embed is None else embed.shape
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"not a StyleGAN2 skip generator: {error} is missing") from error
    conditional = d_state is not None and "mapping.embed.weight" in d_state
    architecture = Architecture(
        resolution=blocks[-1],
        img_channels=img_channels,
        label_dim=label_dim,
        z_dim=inputs - embedded,
        w_dim=w_dim,
        mapping_layers=_mapping_layers(g_state),
        d_mapping_layers=_mapping_layers(d_state) if conditional else 8,
        channel_base=max(r * c for r, c in channels.items()),
        channel_max=max(channels.values()),
        mbstd_group_size=mbstd_group_size,
        conv_clamp=conv_clamp,
    )
    wrong = {r: c for r, c in channels.items() if c != architecture.channels(r)}
    if wrong:
        raise CheckpointError(
            f"channels {reprlib.repr(wrong)} do not follow channel_base / resolution; gemix has "
            "no such generator"
        )
    return architecture


def load_networks(
    g_state: Mapping[str, Tensor], d_state: Mapping[str, Tensor], *, mbstd_group_size: int = 4
) -> tuple[Generator, Discriminator]:
    """Return networks with exactly these weights.

    Raises:
        CheckpointError: naming the weights that are missing, unexpected or of another shape.
    """
    architecture = architecture_of(g_state, d_state, mbstd_group_size=mbstd_group_size)
    generator, discriminator = Generator(architecture), Discriminator(architecture)
    generator.load_state_dict(validate_state_dict(Generator, architecture, g_state, "generator"))
    discriminator.load_state_dict(
        validate_state_dict(Discriminator, architecture, d_state, "discriminator")
    )
    return generator, discriminator


def import_networks(modules: Mapping[str, PickledModule]) -> tuple[Architecture, PretrainedWeights]:
    """Return the architecture and weights of the networks that `read_network_pickle` found.

    Raises:
        CheckpointError: without G_ema, or for networks that gemix cannot compute.
    """
    if "G_ema" not in modules:
        raise CheckpointError("no generator G_ema in the file")
    for name, module in modules.items():
        _check_layers(name, module)
    states = {name: _rescaled(module) for name, module in modules.items()}
    ema, discriminator = states["G_ema"], states.get("D")
    architecture = architecture_of(
        ema,
        discriminator,
        mbstd_group_size=_group_size(modules.get("D")),
        conv_clamp=_conv_clamp(modules),
    )
    raw = states.get("G", ema)
    return architecture, PretrainedWeights(
        generator=validate_state_dict(Generator, architecture, raw, "G"),
        generator_ema=validate_state_dict(Generator, architecture, ema, "G_ema"),
        discriminator=discriminator
        and validate_state_dict(Discriminator, architecture, discriminator, "D"),
    )


def _check_layers(network: str, module: PickledModule) -> None:
    """Refuse layers that compute something else than those of gemix."""
    is_generator = network != "D"
    if is_generator and "input" in getattr(module.children.get("synthesis"), "children", {}):
        raise CheckpointError(f"{network} is a StyleGAN3 network; only StyleGAN2 can be imported")
    blur = fir_filter(ops.BLUR_TAPS)
    for path, layer in module.walk():
        wanted: dict[str, Scalar] = {
            "architecture": "skip" if is_generator else "resnet",
            "activation": "linear" if path.endswith(LINEAR_LAYERS) else "lrelu",
            "use_noise": True,
            "num_channels": 1,  # of the minibatch standard deviation
        }
        if not path.startswith("mapping.fc"):
            wanted["bias_gain"] = 1
        for key, value in wanted.items():
            if layer.settings.get(key, value) != value:
                given = reprlib.repr(layer.settings[key])
                raise CheckpointError(
                    f"{network}.{path} has {key} {given}, and only {value!r} can be imported"
                )
        fir = layer.tensors.get("resample_filter", blur)
        if fir.shape != blur.shape or not torch.allclose(fir.float(), blur):
            raise CheckpointError(
                f"{network}.{path} resamples with another filter than {list(ops.BLUR_TAPS)}"
            )


def _rescaled(module: PickledModule) -> dict[str, Tensor]:
    """Return the weights; scale those of a mapping with another learning rate multiplier, so that
    the mapping of gemix computes the same.
    """
    state = module.state_dict()
    for path, layer in module.walk():
        rate = layer.settings.get("bias_gain", MAPPING_LR_MULTIPLIER)
        if path.startswith("mapping.fc") and rate != MAPPING_LR_MULTIPLIER:
            if not _is_positive(rate):
                raise CheckpointError(f"{path} has bias_gain {reprlib.repr(rate)}, want above 0")
            for name in layer.tensors:
                state[f"{path}.{name}"] = layer.tensors[name] * (rate / MAPPING_LR_MULTIPLIER)
    return state


def _conv_clamp(modules: Mapping[str, PickledModule]) -> float | None:
    """Return the one clamp of all convolution layers."""
    clamps = {
        layer.settings["conv_clamp"]
        for module in modules.values()
        for path, layer in module.walk()
        if "conv_clamp" in layer.settings and not path.endswith("skip")
    }
    clamp = next(iter(clamps), None)
    if len(clamps) > 1 or not (clamp is None or _is_positive(clamp)):
        raise CheckpointError(
            f"layers with conv_clamp {reprlib.repr(clamps)}; gemix has one clamp for all layers"
        )
    return clamp


def _is_positive(value: Scalar) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def _group_size(discriminator: PickledModule | None) -> int:
    """Return the group size of the minibatch standard deviation."""
    layers = dict(discriminator.walk()) if discriminator else {}
    if "b4.mbstd" not in layers:
        return Architecture.mbstd_group_size
    size = layers["b4.mbstd"].settings.get("group_size")
    if size is None:
        return WHOLE_BATCH
    if type(size) is not int or size < 1:
        raise CheckpointError(f"b4.mbstd has group_size {reprlib.repr(size)}, want 1 or more")
    return size


def _mapping_layers(state: Mapping[str, Tensor]) -> int:
    layers = 0
    while f"mapping.fc{layers}.weight" in state:
        layers += 1
    return layers
