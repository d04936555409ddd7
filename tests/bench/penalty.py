"""Time of a gradient penalty through our convolutions, beside PyTorch's own, in turn.

python -m tests.bench.penalty --threads 2
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gemix.gan.models.conv import conv2d


def main() -> None:
    """Print milliseconds and ratios of medians."""
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    for dtype in (torch.float32, torch.bfloat16):
        steps = {"ours": penalty_of(conv2d, options, dtype)}
        steps["PyTorch's"] = penalty_of(F.conv2d, options, dtype)
        times: dict[str, list[float]] = {name: [] for name in steps}
        for round_ in range(options.rounds + 1):
            for name, step in steps.items():
                started = time.perf_counter()
                step()
                if round_:  # the first warms up
                    times[name].append(1000 * (time.perf_counter() - started))
        ours, theirs = (statistics.median(found) for found in times.values())
        print(f"{dtype}: ours {ours:.1f} ms, PyTorch's {theirs:.1f} ms ({theirs / ours:.2f} times)")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(prog="python -m tests.bench.penalty", description=__doc__)
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--rounds", type=int, default=9)
    found.add_argument("--batch", type=int, default=8)
    found.add_argument("--channels", type=int, default=64)
    found.add_argument("--resolution", type=int, default=64)
    return found


def penalty_of(
    convolve: Callable[..., Tensor], options: argparse.Namespace, dtype: torch.dtype
) -> Callable[[], object]:
    """Return a function that differentiates R1 through three 3x3 convolutions by their weights."""
    torch.manual_seed(0)
    channels = options.channels
    shape = options.batch, channels, options.resolution, options.resolution
    images = torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
    scale = (9 * channels) ** -0.5
    weights = [
        (torch.randn(channels, channels, 3, 3) * scale).to(dtype).requires_grad_() for _ in range(3)
    ]

    def logits(x: Tensor) -> Tensor:
        for weight in weights:
            x = F.leaky_relu(convolve(x, weight, padding=1), 0.2)
        return x.float().sum()

    def step() -> object:
        gradient = torch.func.grad(logits)(images)
        return torch.autograd.grad(gradient.float().square().sum(), weights)

    return step


if __name__ == "__main__":
    main()
