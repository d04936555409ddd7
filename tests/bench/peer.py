"""Runs the public StyleGAN2-ADA from a checkout that the user has; none of it is in here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import torch

from gemix.gan.config import GanConfig


def peer_phases(
    task: dict, config: GanConfig, classes: int, device: torch.device
) -> dict[str, tuple[Callable[[], object], int]]:
    """Each phase of the peer's training step, and every how many steps it runs."""
    sys.path.insert(0, task["peer"])
    _set_as_its_training_loop_does(device)
    from training.loss import StyleGAN2Loss
    from training.networks import Discriminator, Generator

    shape = config.architecture(resolution=task["resolution"], img_channels=1, label_dim=classes)
    common = {"c_dim": classes, "img_resolution": task["resolution"], "img_channels": 1}
    # its own automatic setting: float16 in the four highest resolutions on a GPU, with the clamp
    half = {"num_fp16_res": 4, "conv_clamp": 256} if device.type == "cuda" else {}
    channels = {"channel_base": shape.channel_base, "channel_max": shape.channel_max} | half
    generator = Generator(
        z_dim=shape.z_dim,
        w_dim=shape.w_dim,
        mapping_kwargs={"num_layers": shape.mapping_layers},
        synthesis_kwargs=channels,
        **common,
    )
    discriminator = Discriminator(**common, **channels)
    networks = [
        network.train().requires_grad_(False).to(device) for network in (generator, discriminator)
    ]
    generator, discriminator = networks
    loss = StyleGAN2Loss(
        device, generator.mapping, generator.synthesis, discriminator, r1_gamma=1.0
    )
    batch, size = config.batch, task["resolution"]
    average = {name: value.clone() for name, value in generator.named_parameters()}
    optimizers = {
        network: torch.optim.Adam(
            network.parameters(), lr=config.resolved_lr(None, size), betas=(0.0, 0.99), eps=1e-8
        )
        for network in networks
    }
    label = torch.eye(classes, device=device)[torch.arange(batch) % classes]

    def phase(name: str, network: torch.nn.Module, interval: int) -> Callable[[], None]:
        def run() -> None:
            optimizers[network].zero_grad(set_to_none=True)
            network.requires_grad_(True)
            loss.accumulate_gradients(
                phase=name,
                real_img=torch.rand(batch, 1, size, size, device=device) * 2 - 1,
                real_c=label,
                gen_z=torch.randn(batch, shape.z_dim, device=device),
                gen_c=label,
                sync=True,
                gain=interval,
            )
            network.requires_grad_(False)
            for parameter in network.parameters():
                if parameter.grad is not None:
                    torch.nan_to_num(
                        parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad
                    )
            optimizers[network].step()

        return run

    def move_average() -> None:
        with torch.no_grad():
            for name, value in generator.named_parameters():
                average[name].copy_(value.lerp(average[name], 0.999))

    return {
        "G": (phase("Gmain", generator, 1), 1),
        "G path length": (phase("Greg", generator, config.g_reg_interval), config.g_reg_interval),
        "D": (phase("Dmain", discriminator, 1), 1),
        "D R1": (phase("Dreg", discriminator, config.d_reg_interval), config.d_reg_interval),
        "EMA": (move_average, 1),
    }


def build_extensions() -> None:
    """Let its CUDA extensions build with the installed PyTorch.

    Its own builder imports by name what ``torch.utils.cpp_extension.load`` no longer makes
    importable; the sources and flags are the same. ``TORCH_EXTENSIONS_DIR`` keeps the builds.
    """
    from torch.utils.cpp_extension import load
    from torch_utils import custom_ops

    built: dict[str, object] = {}

    def get_plugin(module_name: str, sources: Sequence[str], **flags: object) -> object:
        if module_name not in built:
            built[module_name] = load(name=module_name, sources=list(sources), **flags)
        return built[module_name]

    major, minor = torch.cuda.get_device_capability()
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", f"{major}.{minor}")
    custom_ops.get_plugin = get_plugin


def _set_as_its_training_loop_does(device: torch.device) -> None:
    """Where its extension does not build it falls back, with a warning, to its slow reference."""
    from torch_utils.ops import bias_act, conv2d_gradfix, grid_sample_gradfix, upfirdn2d

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    # with any other PyTorch it uses PyTorch's own operations all the same, and warns in each call
    is_known = torch.__version__.startswith(("1.7.", "1.8.", "1.9."))
    conv2d_gradfix.enabled = grid_sample_gradfix.enabled = is_known
    if device.type == "cuda":
        build_extensions()
        if not (bias_act._init() and upfirdn2d._init()):
            sys.exit("the peer's CUDA extension does not build here: nothing to measure against")


if __name__ == "__main__":  # build the extensions of a checkout, for later runs
    sys.path.insert(0, sys.argv[1])
    _set_as_its_training_loop_does(torch.device("cuda"))
