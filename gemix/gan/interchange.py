"""Networks from state dictionaries under the names of the public StyleGAN2-ADA networks."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from gemix.errors import CheckpointError
from gemix.gan.discriminator import Discriminator
from gemix.gan.generator import Architecture, Generator


def architecture_of(
    g_state: Mapping[str, Tensor],
    d_state: Mapping[str, Tensor] | None = None,
    *,
    mbstd_group_size: int = 4,
) -> Architecture:
    """Reads the architecture off the shapes of the weights.

    Args:
        g_state: generator weights (``mapping.*``, ``synthesis.*``).
        d_state: discriminator weights, where there are any.
        mbstd_group_size: leaves no trace in the weights.

    Raises:
        CheckpointError: if these are no weights of a skip generator, or the channels do not follow
            ``min(channel_base / resolution, channel_max)``.
    """
    blocks = {int(m[1]) for key in g_state if (m := re.match(r"synthesis\.b(\d+)\.", key))}
    if not blocks or "synthesis.b4.const" not in g_state:
        raise CheckpointError("no weight synthesis.b4.const: not a StyleGAN2 skip generator")
    resolution = max(blocks)
    w_dim = g_state["mapping.w_avg"].shape[0]
    label_dim = g_state["mapping.embed.weight"].shape[1] if "mapping.embed.weight" in g_state else 0
    inputs = g_state["mapping.fc0.weight"].shape[1]
    channels = {r: g_state[f"synthesis.b{r}.conv1.weight"].shape[0] for r in blocks}
    architecture = Architecture(
        resolution=resolution,
        img_channels=g_state[f"synthesis.b{resolution}.torgb.weight"].shape[0],
        label_dim=label_dim,
        z_dim=inputs - (w_dim if label_dim else 0),
        w_dim=w_dim,
        mapping_layers=_mapping_layers(g_state),
        d_mapping_layers=_mapping_layers(d_state or {}) or 8,
        channel_base=max(r * c for r, c in channels.items() if c < max(channels.values()))
        if len(set(channels.values())) > 1
        else max(r * c for r, c in channels.items()),
        channel_max=max(channels.values()),
        mbstd_group_size=mbstd_group_size,
    )
    wrong = {r: c for r, c in channels.items() if c != architecture.channels(r)}
    if wrong:
        raise CheckpointError(f"channels {wrong} do not follow channel_base / resolution")
    return architecture


def load_networks(
    g_state: Mapping[str, Tensor], d_state: Mapping[str, Tensor], *, mbstd_group_size: int = 4
) -> tuple[Generator, Discriminator]:
    """Networks that hold exactly these weights.

    Raises:
        CheckpointError: naming the weights that are missing, left over or of another shape.
    """
    architecture = architecture_of(g_state, d_state, mbstd_group_size=mbstd_group_size)
    generator, discriminator = Generator(architecture), Discriminator(architecture)
    for name, network, state in [
        ("generator", generator, g_state),
        ("discriminator", discriminator, d_state),
    ]:
        # the public networks carry a copy of the blur filter in layers that never use it
        known = network.state_dict().keys()
        kept = {k: v for k, v in state.items() if k in known or "resample_filter" not in k}
        try:
            network.load_state_dict(kept)
        except RuntimeError as error:
            raise CheckpointError(f"the {name}'s weights do not fit: {error}") from error
    return generator, discriminator


def _mapping_layers(state: Mapping[str, Tensor]) -> int:
    return sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", key)) for key in state)
