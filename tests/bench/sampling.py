"""Speed of sampling, as ratios to a loop that makes one image at a time.

    python -m tests.bench.sampling                                # our generator in the loop
    python -m tests.bench.sampling --peer ~/stylegan2-ada-pytorch # the public one in it

The loop is what the public GeMix code does: one latent, one label, one image, float32. Rounds take
turns, and each figure is the median over them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from gemix.core.device import default_device
from gemix.gan.config import GanConfig, SamplingConfig
from gemix.gan.models.generator import Generator
from gemix.gan.sampling import sample_images

CLASSES = 3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sampling")
    parser.add_argument("--peer", help="checkout of the public stylegan2-ada-pytorch")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--channel-base", type=int, default=16384)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    speeds = measure(parser.parse_args())
    base = next(iter(speeds.values()))
    for name, speed in speeds.items():
        print(f"{name:<30}{speed:>10.1f} images/s{speed / base:>8.1f}x")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Return images per second of each way; of the loop first."""
    torch.set_num_threads(options.threads)
    device = default_device()
    gan = GanConfig(mapping_layers=2, channel_base=options.channel_base)
    shape = gan.architecture(resolution=options.resolution, img_channels=1, label_dim=CLASSES)
    generator = Generator(shape).eval().requires_grad_(False).to(device)
    seeds = list(range(options.images))
    labels = np.eye(CLASSES, dtype=np.float32)[np.arange(options.images) % CLASSES]

    def batched(precision: str) -> Callable[[], None]:
        config = SamplingConfig(precision=precision)
        return lambda: sample_images(generator, seeds, labels, config, device)

    def one_by_one() -> None:
        config = SamplingConfig(batch=1, noise_mode="const")
        for seed, label in zip(seeds, labels, strict=True):
            sample_images(generator, [seed], label[None], config, device)

    loop = public_loop(options, gan, labels, device) if options.peer else one_by_one
    ways = {
        f"one image at a time{', public' if options.peer else ''}": loop,
        "float32": batched("float32"),
        "tf32": batched("tf32"),
        "auto": batched("auto"),
    }
    if device.type == "cpu":
        del ways["tf32"]  # float32 there
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds + 1):  # the first warms up
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    return {name: options.images / statistics.median(found[1:]) for name, found in times.items()}


def public_loop(
    options: argparse.Namespace, gan: GanConfig, labels: np.ndarray, device: torch.device
) -> Callable[[], None]:
    """Return the loop over the public implementation's generator."""
    sys.path[:0] = [options.peer, str(Path(__file__).parent)]
    from peer import build_extensions
    from training.networks import Generator as PublicGenerator

    # float16 where its training on a GPU has it
    half = {"num_fp16_res": 4, "conv_clamp": 256} if device.type == "cuda" else {}
    if half:
        build_extensions()

    generator = PublicGenerator(
        z_dim=gan.z_dim,
        w_dim=gan.w_dim,
        c_dim=CLASSES,
        img_resolution=options.resolution,
        img_channels=1,
        mapping_kwargs={"num_layers": gan.mapping_layers},
        synthesis_kwargs={
            "channel_base": options.channel_base,
            "channel_max": gan.channel_max,
            **half,
        },
    )
    generator = generator.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def run() -> None:
        for label in labels:
            z = torch.randn(1, gan.z_dim, device=device)
            image = generator(z, torch.from_numpy(label[None]).to(device), noise_mode="const")
            (image * 127.5 + 128).clamp(0, 255).to(torch.uint8).cpu().numpy()

    return run


if __name__ == "__main__":
    main()
