"""Stage 2: images per second, memory, and how far from what the card computes at all."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from gemix.core.device import float32_products
from gemix.gan.config import GanConfig
from gemix.gan.estimate import estimate_cost
from tests.bench.gan_worker import synchronize, timed
from tests.gpu.common import CLASSES, SMALL, Stage, trainer_for

MOST_SECONDS = 100  # of one setting: compilation, or the build of the public code's extensions
LAZY = 16  # steps in which every lazy phase runs as often as it should

# resolution, batch, precision, how; ordered by worth
SETTINGS = [
    (128, 32, "bfloat16", "CUDA graphs"),
    (128, 32, "float16", "public"),
    (64, 32, "bfloat16", "CUDA graphs"),
    (64, 32, "float16", "public"),
    (128, 64, "bfloat16", "CUDA graphs"),
    (256, 32, "bfloat16", "CUDA graphs"),
    (256, 32, "float16", "public"),
    (128, 32, "bfloat16", "eager"),
    (128, 32, "tf32", "CUDA graphs"),
    (128, 32, "bfloat16", "compiled"),
    (64, 64, "bfloat16", "CUDA graphs"),
    (64, 32, "bfloat16", "eager"),
    (64, 32, "bfloat16", "compiled"),
    (128, 32, "float32", "CUDA graphs"),
    (256, 64, "bfloat16", "CUDA graphs"),
    (64, 32, "tf32", "CUDA graphs"),
    (256, 32, "tf32", "CUDA graphs"),
]


def main() -> None:
    """Measure the ceiling, then each setting in a process of its own."""
    if "setting" in json.loads(sys.argv[1]):
        measure_setting()
        return
    stage = Stage("speed")
    bf16, tf32 = ceilings(stage.device, torch.bfloat16), ceilings(stage.device, torch.float32)
    for precision, (product, convolution) in {"bfloat16": bf16, "tf32": tf32}.items():
        stage.add(setting=f"ceiling, {precision}", matmul_tflops=product, conv_tflops=convolution)
    ceiling = {"bfloat16": max(bf16), "float16": max(bf16), "tf32": max(tf32)}
    settings = [(32, 8, "bfloat16", "eager")] if stage.tiny else SETTINGS
    for setting in settings:
        if stage.seconds_left < 15:
            break
        if setting[3] == "public" and not stage.task["peer"]:
            continue
        row = in_process(stage, setting)
        if "tflops" in row and setting[2] in ceiling:
            row["of_ceiling"] = row["tflops"] / ceiling[setting[2]]
        stage.add(setting=" ".join(map(str, setting)), **row)


def in_process(stage: Stage, setting: tuple[int, int, str, str]) -> dict:
    """Return the measurement of one setting; an error is a row too."""
    task = stage.task | {"setting": setting, "seconds": stage.seconds_left}
    command = [sys.executable, "-m", "tests.gpu.speed", json.dumps(task)]
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            text=True,
            timeout=max(5, min(MOST_SECONDS, stage.seconds_left)),
        )
    except subprocess.TimeoutExpired:
        return {"error": "was cut off"}
    if done.returncode:
        return {"error": f"exit code {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def measure_setting() -> None:
    """Print the row of one setting."""
    task = json.loads(sys.argv[1])
    resolution, batch, precision, how = task["setting"]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    config = GanConfig(
        batch=batch,
        kimg=1e6,
        precision="bfloat16" if how == "public" else precision,
        augment="none",
        compile=how == "compiled",
        cuda_graphs=how == "CUDA graphs",
        **(SMALL if task["tiny"] else {"mapping_layers": 2}),
    )
    if how == "public":
        step = public_step(task, config, resolution, device)
    else:
        step = trainer_for(config, resolution, device).run_step
    started = time.perf_counter()
    for _ in range(LAZY + 1):
        step()
    synchronize(device)
    warm_up = time.perf_counter() - started
    rounds = 1 if task["tiny"] or device.type == "cpu" else 3
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(LAZY):
            step()
        synchronize(device)
        times.append((time.perf_counter() - started) / LAZY)
    seconds = sorted(times)[len(times) // 2]
    shape = config.architecture(resolution=resolution, img_channels=1, label_dim=CLASSES)
    flops = estimate_cost(shape, config).flops_per_step
    row = {
        "images_per_s": batch / seconds,
        "ms_per_step": 1000 * seconds,
        "tflops": flops / seconds / 1e12,
        "warm_up_s": warm_up,
    }
    if device.type == "cuda":
        row["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps(row))


def public_step(
    task: dict, config: GanConfig, resolution: int, device: torch.device
) -> Callable[[], None]:
    """Return a step of the public implementation, as its training loop runs the phases."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
    from peer import peer_phases

    phases = peer_phases(
        {"peer": task["peer"], "resolution": resolution}, config, CLASSES, device
    ).values()
    count = 0

    def step() -> None:
        nonlocal count
        for run, every in phases:
            if count % every == 0:
                run()
        count += 1

    return step


def ceilings(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Return the TFLOP/s of a large matrix product and of a 3x3 convolution of 256 channels."""
    size, images = (8192, 256) if device.type == "cuda" else (512, 2)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    x = torch.randn(images, 256, 64, 64, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    w = torch.randn(256, 256, 3, 3, device=device, dtype=dtype)
    w = w.contiguous(memory_format=torch.channels_last)
    with float32_products(tf32=True), torch.inference_mode():
        product = 2 * size**3 / timed(lambda: a @ b, 10, device)
        convolution = timed(lambda: torch.nn.functional.conv2d(x, w, padding=1), 10, device)
    return product / 1e12, 2 * images * 64**2 * 256**2 * 9 / convolution / 1e12


if __name__ == "__main__":
    main()
