"""Stage 3: what a step is spent on."""

from __future__ import annotations

import time

import torch
from torch.profiler import ProfilerActivity, profile

from gemix.gan.config import GanConfig
from tests.bench.gan_worker import synchronize
from tests.gpu.common import SMALL, Stage, trainer_for

STEPS = 16  # in which every lazy phase runs as often as it should
KERNELS = 25


def main() -> None:
    """Profile the paper's networks at 128 x 128: launches, idle share, the costliest kernels."""
    stage = Stage("kernels")
    on_gpu = stage.device.type == "cuda"
    steps = 2 if stage.tiny else STEPS
    config = GanConfig(
        batch=8 if stage.tiny else 32,
        kimg=1e6,
        precision="bfloat16",
        augment_p=0.5,
        **(SMALL if stage.tiny else {"mapping_layers": 2}),
    )
    torch.backends.cudnn.benchmark = True
    trainer = trainer_for(config, 32 if stage.tiny else 128, stage.device)
    for _ in range(steps + 1):
        trainer.run_step()
    synchronize(stage.device)
    started = time.perf_counter()
    for _ in range(steps):
        trainer.run_step()
    synchronize(stage.device)
    seconds = (time.perf_counter() - started) / steps
    # on a GPU not the host's operations too, which take a minute to add up
    with profile(activities=[getattr(ProfilerActivity, "CUDA" if on_gpu else "CPU")]) as found:
        for _ in range(steps):
            trainer.run_step()
        synchronize(stage.device)
    averages = found.key_averages()

    def own_us(event) -> float:
        return event.self_device_time_total if on_gpu else event.self_cpu_time_total

    rows = [event for event in averages if own_us(event) > 0]
    if on_gpu:  # kernels, and not the operations that launch them
        rows = [
            event
            for event in rows
            if event.device_type.name == "CUDA" and not event.is_user_annotation
        ]
    busy = sum(own_us(event) for event in rows) / 1e6 / steps
    launching = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch")
    launches = sum(event.count for event in averages if event.key.startswith(launching))
    stage.add(
        what="a step",
        ms=1000 * seconds,
        busy_ms=1000 * busy,
        idle_share=max(0.0, 1 - busy / seconds),
        launches=launches / steps,
        kernels=sum(event.count for event in rows) / steps,
    )
    for event in sorted(rows, key=own_us, reverse=True)[:KERNELS]:
        ms = own_us(event) / 1000 / steps
        stage.add(what=event.key[:120], ms=ms, share=ms / 1000 / busy, launches=event.count / steps)


if __name__ == "__main__":
    main()
