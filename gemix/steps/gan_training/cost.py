"""Describe the estimated cost of a GAN training; needs neither data nor a GPU."""

from __future__ import annotations

from gemix.config import PipelineConfig
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.gan.checkpoints.checkpoint import TrainingSpec
from gemix.gan.estimate import PEAK_TFLOPS, UTILIZATION, TrainingCost, estimate_cost
from gemix.gan.models.architecture import Architecture
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.gan_training.data import gan_architecture

CLASSES = 3  # where the data are not prepared yet; they hardly matter
LAUNCH_BOUND_FLOPS = 1e12  # of a step: milliseconds at the rates above
GBIT_PER_S = {"10 Gb/s network": 10, "100 Gb/s network": 100, "one machine (PCIe 4)": 200}


def planned_architecture(config: PipelineConfig, workspace: Workspace) -> Architecture:
    """Return the networks that a training in a work directory would have."""
    store = Store(workspace.data)
    if not store.exists(MANIFEST):
        return config.gan.architecture(
            resolution=config.data.resolution,
            img_channels=len(config.data.windows),
            label_dim=CLASSES,
        )
    return gan_architecture(config.gan, Manifest.load(store))


def summarize_cost(spec: TrainingSpec, workers: int) -> str:
    """Return one line: operations, messages, and hours on the known types of GPUs."""
    cost = estimate_cost(spec.architecture, spec.config)
    hours = ", ".join(
        f"{name} {_hours(cost.compute_hours(peak * UTILIZATION, workers))}"
        for name, peak in PEAK_TFLOPS.items()
        if name in ("L4", "A100", "H100")
    )
    return (
        f"estimate: {cost.flops_per_image / 1e9:.3g} GFLOP an image, {cost.kimg:g} kimg; "
        f"computation on {_gpus(workers)} at {UTILIZATION:.0%} of the peak: {hours} "
        "(gemix train-gan --estimate says more)"
    )


def describe_cost(config: PipelineConfig, workspace: Workspace) -> str:
    """Return a page on the cost of a training: counts, and hours by type of GPU and network."""
    architecture, gan = planned_architecture(config, workspace), config.gan
    cost, workers = estimate_cost(architecture, gan), config.compute.ranks
    size, label = architecture.resolution, "generator and discriminator"
    lines = [
        f"{gan.summary}, {size} x {size}, {gan.kimg:g} kimg in {cost.steps:,.0f} steps of "
        f"{gan.batch} images, {_gpus(workers)}",
        "",
        f"  parameters         {_parameters(cost)} ({label})",
        f"  operations         {cost.flops_per_image / 1e9:.3g} GFLOP an image, "
        f"{cost.flops_per_step / 1e9:,.4g} GFLOP a step, {_total(cost):.2g} FLOP in all",
        *(
            f"    {phase:<17}{flops / 1e9:,.4g} GFLOP when it runs"
            for phase, flops in cost.phase_flops.items()
        ),
        f"  gradients          {cost.gradient_bytes_per_step / 1e6:,.0f} MB a step "
        f"({gan.allreduce_precision})",
        "",
        f"  computation at {UTILIZATION:.0%} of the peak, which the public StyleGAN2-ADA reaches "
        "on an A100:",
        *(
            f"    {name:<17}{_hours(cost.compute_hours(peak * UTILIZATION, workers))}"
            for name, peak in PEAK_TFLOPS.items()
        ),
    ]
    if cost.flops_per_step < LAUNCH_BOUND_FLOPS:
        lines.append("    but networks this small wait for kernel launches, which are not counted")
    if workers > 1:
        lines += [
            "",
            "  communication, where it does not overlap with computation:",
            *(
                f"    {name:<25}{_hours(cost.allreduce_hours(rate, workers))}"
                for name, rate in GBIT_PER_S.items()
            ),
        ]
    return "\n".join(lines)


def _gpus(workers: int) -> str:
    return "1 GPU" if workers == 1 else f"{workers} GPUs"


def _parameters(cost: TrainingCost) -> str:
    return " + ".join(f"{count / 1e6:.1f} M" for count in cost.parameters.values())


def _total(cost: TrainingCost) -> float:
    return cost.flops_per_step * cost.steps


def _hours(hours: float) -> str:
    return f"{hours * 60:.2g} min" if hours < 1 else f"{hours:.2g} h"
