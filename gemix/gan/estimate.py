"""Estimate a training: operations, bytes between workers, and hours on GPUs of a known type.

Operations are counted by running every phase of a step on PyTorch's meta device, which computes
shapes and no values, with the formulas of torch.utils.flop_counter: those of convolutions and
matrix products; a multiplication with its addition counts as two.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gemix.core.distributed import Workers
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.models.architecture import Architecture
from gemix.gan.training.optimizer_step import OptimizerStep
from gemix.gan.training.registry import METHODS, new_state

# Peak of dense bfloat16 products (float16 on V100 and T4) in TFLOP/s, from NVIDIA's data sheets.
PEAK_TFLOPS = MappingProxyType(
    {
        "T4": 65,
        "L4": 121,
        "V100": 125,
        "A10": 125,
        "A100": 312,
        "L40S": 362,
        "H100": 989,
        "H200": 989,
    }
)
# Share of the peak that a training reaches. The public StyleGAN2-ADA reports 147 images/s on one
# A100 at 128 x 128 and batch 32, some 14% of it. Ours reached 30% on an H200; on GPUs whose memory
# is slower for what they multiply it has not been measured.
UTILIZATION = 0.14


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """Cost of a training.

    Attributes:
        kimg: its length.
        batch: images of a step.
        flops_per_step: of all workers together, lazy phases by their share.
        phase_flops: of each phase, in the steps that run it.
        gradient_bytes_per_step: that each worker averages with the others, lazy phases by their
            share.
        parameters: of the generator and the discriminator.
    """

    kimg: float
    batch: int
    flops_per_step: float
    phase_flops: dict[str, float]
    gradient_bytes_per_step: float
    parameters: dict[str, int]

    @property
    def flops_per_image(self) -> float:
        """Return the operations for each real image that is shown."""
        return self.flops_per_step / self.batch

    @property
    def steps(self) -> float:
        """Return the number of steps."""
        return self.kimg * 1000 / self.batch

    def compute_hours(self, tflops: float, workers: int = 1) -> float:
        """Return the hours of computation at a sustained rate of each worker."""
        return self.steps * self.flops_per_step / (tflops * 1e12) / workers / 3600

    def allreduce_hours(self, gbit_per_s: float, workers: int) -> float:
        """Return the hours of communication, where none of it overlaps with computation.

        A ring all-reduce sends and receives 2 (n - 1) / n of the bytes on each of n workers
        (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms", 2009).
        """
        sent = 2 * (workers - 1) / workers * self.gradient_bytes_per_step
        return self.steps * sent * 8 / (gbit_per_s * 1e9) / 3600


class _OperationCounter(TorchDispatchMode):
    """Add up the operations; FlopCounterMode's tracking of modules fails in gradient penalties."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        formula = flop_registry.get(function.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


class _MeteredStep(OptimizerStep):
    """Count the operations of a phase, and leave the weights as they are."""

    def __enter__(self) -> OptimizerStep:
        self.counter = _OperationCounter()
        super().__enter__()
        self.counter.__enter__()
        return self

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        self.counter.__exit__(kind, error, trace)
        super().__exit__(kind, error, trace)

    def update(self, gradients: list[torch.Tensor]) -> None:
        """Take no step."""
        self.applied = torch.ones([], dtype=torch.bool, device="meta")


def estimate_cost(architecture: Architecture, config: GanConfig) -> TrainingCost:
    """Return the cost of a training, without training; it takes seconds."""
    meta = torch.device("meta")
    # on one worker, in one part, in float32: none of that changes the operations
    single = dataclasses.replace(config, accumulate=1, compile=False, precision="float32")
    method = METHODS[config.method]
    side, channels = architecture.resolution, architecture.img_channels
    data = InMemoryDataset(
        np.zeros((1, channels, side, side), np.uint8),
        np.ones((1, architecture.label_dim), np.float32) / max(1, architecture.label_dim),
        seed=0,
        device=meta,
    )
    state = new_state(architecture, single, meta)
    trainer = method(state, data, single, Workers())
    trainer.optimizer_step = _MeteredStep
    trainer.run_phases()
    intervals, metered = method.phases(config), trainer.optimizer_steps
    flops = {phase: step.counter.flops for phase, step in metered.items()}
    size = torch.finfo(getattr(torch, config.allreduce_precision)).bits // 8
    return TrainingCost(
        kimg=config.kimg,
        batch=config.batch,
        flops_per_step=sum(flops[phase] / intervals[phase] for phase in flops),
        phase_flops=flops,
        gradient_bytes_per_step=sum(
            size * sum(p.numel() for p in step.trainable) / intervals[phase]
            for phase, step in metered.items()
        ),
        parameters={
            name: sum(p.numel() for p in network.parameters())
            for name, network in (
                ("generator", state.generator),
                ("discriminator", state.discriminator),
            )
        },
    )
