"""One measurement of ``gan.py``, in a process of its own."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from gemix.core.device import compute_dtype, cudnn_benchmark, float32_products
from gemix.core.distributed import Workers
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.estimate import estimate_cost
from gemix.gan.models.architecture import Architecture
from gemix.gan.training.registry import new_state
from gemix.gan.training.stylegan2_ada import StyleGAN2ADATrainer

CLASSES = 3


@float32_products()
@cudnn_benchmark()
def main() -> None:
    """Measures the task on the command line; prints a line of JSON last."""
    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = GanConfig(
        batch=task["batch"],
        channel_base=task["channel_base"],
        channel_max=task["channel_max"],
        precision=task["precision"],
        augment="none",
        compile=task["compile"] == "on",
    )
    if task["engine"] == "peer":
        from peer import peer_phases

        phases = peer_phases(task, config, CLASSES, device)
    else:
        phases = own_phases(task, config, device)
    warm_up = {name: timed(run, 1, device, warm_up=0) for name, (run, _) in phases.items()}
    seconds = {name: timed(run, task["repeats"], device) for name, (run, _) in phases.items()}
    weighted = {name: seconds[name] / every for name, (_, every) in phases.items()}
    step = sum(weighted.values())
    flops = estimate_cost(architecture(task, config), config).flops_per_image
    tflops = flops * config.batch / step / 1e12
    dtype = computed_in(task["engine"], config.precision, device)
    print(
        json.dumps(
            {
                "images_per_s": config.batch / step,
                "tflops": tflops,
                "of_ceiling": tflops / ceiling_tflops(dtype, device),
                "computed_in": str(dtype).removeprefix("torch."),
                "peak_mib": peak_mib(device),
                "warm_up_s": sum(warm_up.values()),
                "shares": {name: part / step for name, part in weighted.items()},
                "device": device_name(device),
                "torch": torch.__version__,
            }
        )
    )


def architecture(task: dict, config: GanConfig) -> Architecture:
    return Architecture(
        resolution=task["resolution"],
        img_channels=1,
        label_dim=CLASSES,
        channel_base=config.channel_base,
        channel_max=config.channel_max,
    )


def own_phases(
    task: dict, config: GanConfig, device: torch.device
) -> dict[str, tuple[Callable[[], object], int]]:
    """Each phase of a step, and every how many steps it runs."""
    rng = np.random.default_rng(0)
    size = (256, 1, task["resolution"], task["resolution"])
    labels = np.eye(CLASSES, dtype=np.float32)[rng.integers(CLASSES, size=256)]
    data = InMemoryDataset(rng.integers(0, 255, size, dtype=np.uint8), labels, 0, device)
    state = new_state(architecture(task, config), config, device)
    trainer = StyleGAN2ADATrainer(state, data, config, Workers())
    return {
        "G": (trainer.train_generator, 1),
        "G path length": (trainer.regularize_generator, config.g_reg_interval),
        "D": (trainer.train_discriminator, 1),
        "D R1": (trainer.regularize_discriminator, config.d_reg_interval),
        "EMA": (lambda: state.update_ema(config.batch, 10.0, None), 1),
    }


def timed(run: Callable[[], object], repeats: int, device: torch.device, warm_up: int = 1) -> float:
    """The least time of a call after `warm_up` others; other work disturbs the least the least.

    In seconds.
    """
    times = []
    for _ in range(repeats + warm_up):
        synchronize(device)
        started = time.perf_counter()
        run()
        synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[warm_up:])


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def computed_in(engine: str, precision: str, device: torch.device) -> torch.dtype:
    """What most convolutions compute in; the peer has float16 on GPUs alone."""
    if engine == "peer":
        return torch.float16 if device.type == "cuda" else torch.float32
    return compute_dtype(precision, device)


def ceiling_tflops(dtype: torch.dtype, device: torch.device) -> float:
    """What a large matrix product reaches here."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / timed(lambda: a @ b, 5, device) / 1e12


def peak_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
