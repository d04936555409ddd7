"""Stage 4: images per second of sampling, beside a loop that makes one image at a time."""

from __future__ import annotations

import argparse

import torch

from tests.bench.sampling import measure
from tests.gpu.common import Stage


def main() -> None:
    """Measure the paper's network at 128 x 128."""
    stage = Stage("sampling")
    speeds = measure(
        argparse.Namespace(
            peer="" if stage.tiny else stage.task["peer"],
            resolution=32 if stage.tiny else 128,
            channel_base=1024 if stage.tiny else 16384,
            threads=torch.get_num_threads(),
            images=4 if stage.tiny else 256,
            rounds=1,
        )
    )
    base = next(iter(speeds.values()))
    for name, speed in speeds.items():
        stage.add(way=name, images_per_s=speed, times=speed / base)


if __name__ == "__main__":
    main()
