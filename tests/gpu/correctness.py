"""Stage 1: is what the GPU computes right?"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from gemix.core.device import float32_products
from gemix.core.distributed import Workers
from gemix.core.rng import Stream
from gemix.core.torch_rng import draw
from gemix.gan.checkpoints.checkpoint import TrainingSpec, save_checkpoint
from gemix.gan.config import GanConfig
from gemix.gan.importers.stylegan2 import load_networks
from gemix.gan.losses import adversarial, regularizers
from gemix.gan.models.bias_act import Activation, bias_act, is_fused
from gemix.gan.testing import MemoryStore
from gemix.gan.training.loop import train
from gemix.gan.training.registry import new_state
from gemix.gan.training.stages import resume_or_start
from gemix.gan.training.state import TrainingState
from tests.gpu.common import Stage, small_config, trainer_for

PHASES = {
    "generator": "train_generator",
    "path length": "regularize_generator",
    "discriminator": "train_discriminator",
    "R1": "regularize_discriminator",
}
RESOLUTION = 32
STEPS = 8 if torch.cuda.is_available() else 4  # of trainings that are compared
# Of weights after those steps: rounding alone, as another algorithm of cuDNN rounds, moves them by
# 3e-6 on an H100; a wrong step, or an optimizer's state that is lost, by more than 1e-3.
ROUNDING = 1e-4
CPU = torch.device("cpu")


def main() -> None:
    """Run all checks, the most telling first."""
    stage = Stage("correctness")
    device = stage.device
    stage.attempt("random numbers: GPU against CPU", lambda: check_random_numbers(device))
    for file in sorted(Path(stage.task["parity"] or "/none").glob("stylegan2_*.npz")):
        stage.attempt(f"reference numbers: {file.stem}", lambda: check_parity(file, device))  # noqa: B023
    for dtype in (torch.float32, torch.bfloat16):
        stage.attempt(
            f"activations, {str(dtype).removeprefix('torch.')}: kernels against operations",
            lambda: check_activations(device, dtype),  # noqa: B023
        )
    alone = gradients(small_config(), CPU)
    stage.attempt(
        "float32 gradients: GPU against CPU",
        lambda: compare(gradients(small_config(), device), alone, 1e-3),
    )
    stage.attempt(
        "the same without CUDA graphs",
        lambda: compare(gradients(small_config(cuda_graphs=False), device), alone, 1e-3),
    )
    stage.attempt("CUDA graphs train as eager phases", lambda: check_graphs(device, small_config()))
    stage.attempt("no host sync in 20 steps", lambda: check_syncs(device, small_config()))
    stage.attempt(
        "bfloat16 gradients against float32",
        lambda: compare(gradients(small_config(precision="bfloat16"), device), alone, 0.3),
    )
    stage.attempt(
        "accumulate=2 against 1",
        lambda: compare(gradients(small_config(accumulate=2), device), alone, 1e-3),
    )
    stage.attempt("resume against undisturbed", lambda: check_resume(device, small_config()))
    stage.attempt("two ranks against one (gloo)", lambda: check_ranks(alone, device))


def compare(ours: dict[str, Tensor], right: dict[str, Tensor], tolerance: float) -> dict:
    """Return the largest relative distance of a phase's gradients."""
    errors = {name: distance(ours[name], right[name]) for name in right}
    worst = max(errors, key=errors.__getitem__)
    return {
        "ok": errors[worst] < tolerance,
        "detail": f"relative error {errors[worst]:.1e} ({worst}), at most {tolerance:g}",
    }


def distance(a: Tensor, b: Tensor) -> float:
    """Return the norm of a difference, relative to the second."""
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


@float32_products()
def gradients(
    config: GanConfig, device: torch.device, workers: Workers | None = None
) -> dict[str, Tensor]:
    """Return the gradients of each phase of a first step, from the same weights."""
    found = {}
    for phase, method in PHASES.items():
        trainer = trainer_for(config, RESOLUTION, device, workers)
        getattr(trainer, method)()
        is_generator = phase in ("generator", "path length")
        network = trainer.state.generator if is_generator else trainer.state.discriminator
        found[phase] = torch.cat(
            [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        ).clone()
    return found


def check_random_numbers(device: torch.device) -> dict:
    """The kernel for GPUs draws what the reference draws."""

    def drawn(where: torch.device) -> tuple[Tensor, Tensor]:
        index, step = torch.arange(64, device=where), torch.tensor([7], device=where)
        return draw(2**40 + 3, Stream.G_LATENT, index, step, uniforms=24, normals=10_001)

    (uniform, normal), (right_uniform, right_normal) = drawn(device), drawn(CPU)
    same = torch.equal(uniform.cpu(), right_uniform)
    error = float(((normal.cpu() - right_normal).abs() / right_normal.abs().clamp_min(1e-3)).max())
    return {
        "ok": same and error < 2e-6,
        "detail": f"uniform {'equal' if same else 'DIFFERENT'}, normal: relative error {error:.1e}",
    }


def check_activations(device: torch.device, dtype: torch.dtype) -> dict:
    """The kernels compute what PyTorch's operations compute in float64, and are in use at all."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    n, channels, side = 4, 96, 33
    x, noise = randn(n, channels, side, side), randn(side, side)
    factors = {"demodulation": randn(n, channels), "noise_strength": randn()}
    factors |= {"bias": randn(channels), "styles": randn(n, channels)}
    weight, by_styles = randn(*x.shape), randn(n, channels)
    activation = Activation(0.2, 2**0.5, 2.0)

    def derivatives(where: torch.device, of: torch.dtype) -> list[Tensor]:
        small = torch.float64 if of == torch.float64 else torch.float32
        leaves = [x.to(where, of).requires_grad_()]
        leaves += [value.to(where, small).requires_grad_() for value in factors.values()]
        given = dict(zip(factors, leaves[1:], strict=True))
        y = bias_act(leaves[0] * 1, activation, noise=noise.to(where, small), **given)
        scalar = (y.pow(2) * weight.to(where, of)).sum(dtype=small)
        first = torch.autograd.grad(scalar, leaves, create_graph=True)
        mixed = (first[-1] * by_styles.to(where, small)).sum()
        return [y, *first, *torch.autograd.grad(mixed, leaves)]

    # operations on rounded inputs, so that the rounding of the inputs is not counted
    x = x.to(dtype).double()
    weight = weight.to(dtype).double()
    right = derivatives(CPU, torch.float64)
    error = max(
        distance(ours, theirs)
        for ours, theirs in zip(derivatives(device, dtype), right, strict=True)
    )
    in_use = is_fused(x.to(device)) or device.type != "cuda"
    # operations round after each of them, so that more values cross the kink and the clamp
    at_most = 1e-4 if dtype == torch.float32 else 0.03 if device.type == "cuda" else 0.3
    return {
        "ok": in_use and error < at_most,
        "detail": f"{'' if in_use else 'NOT IN USE, '}relative error {error:.1e}, "
        f"at most {at_most:g}",
    }


@float32_products()
def check_parity(path: Path, device: torch.device) -> dict:
    """Images, logits, losses and gradients of the public implementation's numbers."""
    ref = np.load(path, allow_pickle=False)
    config = json.loads(str(ref["config"]))

    def tensor(key: str) -> Tensor:
        return torch.from_numpy(ref[key]).to(device)

    def state(prefix: str) -> dict[str, Tensor]:
        return {
            key.removeprefix(prefix): torch.from_numpy(ref[key])
            for key in ref.files
            if key.startswith(prefix)
        }

    generator, discriminator = (
        network.to(device)
        for network in load_networks(
            state("G."), state("D."), mbstd_group_size=config["mbstd_group_size"]
        )
    )
    label = tensor("in.c") if config["c_dim"] else None
    noise = generator.noise_const()
    images = generator(tensor("in.z"), label, noise)
    loss = adversarial.nonsaturating_generator_loss(discriminator(images, label))
    loss.backward()
    reals = tensor("in.x")
    penalties = regularizers.r1_penalty(lambda images: discriminator(images, label), reals)
    lengths = regularizers.path_lengths(
        lambda ws: generator.synthesis(ws, noise),
        generator.map(tensor("in.z"), label),
        tensor("pl.noise"),
    )
    names = [name for name, p in generator.named_parameters() if f"gradG.{name}" in ref.files]
    of_generator = dict(generator.named_parameters())
    errors = {
        "image": distance(generator.synthesis(tensor("out.ws"), noise), tensor("out.image_const")),
        "logits": distance(discriminator(reals, label), tensor("out.logits_real")),
        "gradient of G": distance(
            torch.cat([of_generator[name].grad.flatten() for name in names]),
            torch.cat([tensor(f"gradG.{name}").flatten() for name in names]),
        ),
        "R1": distance(penalties, tensor("r1.per_image")),
        "path lengths": distance(lengths, tensor("pl.lengths")),
    }
    worst = max(errors, key=errors.__getitem__)
    return {"ok": errors[worst] < 1e-3, "detail": f"relative error {errors[worst]:.1e} ({worst})"}


def check_syncs(device: torch.device, config: GanConfig) -> dict:
    """No operation of a step makes the host wait for the GPU; launches are eager, or compiled."""
    trainer = trainer_for(dataclasses.replace(config, augment_p=None), RESOLUTION, device)
    for _ in range(5):  # compiles, and fills caches
        trainer.run_step()
    if device.type != "cuda":
        return {"ok": True, "detail": "not checked: no GPU"}
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            trainer.run_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"ok": True, "detail": "set_sync_debug_mode('error')"}


def check_ranks(alone: dict[str, Tensor], device: torch.device) -> dict:
    """Two processes on one GPU have the gradients of one."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, args=(folder, str(device)), nprocs=2)
        found = [torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in range(2)]
    equal = all(torch.equal(found[0][phase], found[1][phase]) for phase in alone)
    row = compare(found[0], alone, 1e-3)
    return row | {"ok": row["ok"] and equal}


def _rank(rank: int, folder: str, device: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = gradients(small_config(), torch.device(device), Workers.from_process_group())
    torch.save({phase: value.cpu() for phase, value in found.items()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def check_graphs(device: torch.device, config: GanConfig) -> dict:
    """Replayed CUDA graphs train as eager phases do, up to what two eager trainings differ."""
    eager_config = dataclasses.replace(config, cuda_graphs=False)
    eager, again = (trained_weights(eager_config, device) for _ in range(2))
    return compare_trainings(trained_weights(config, device), eager, again)


def check_resume(device: torch.device, config: GanConfig) -> dict:
    """A resumed training ends where an undisturbed one does, up to what two of those differ."""
    config = dataclasses.replace(config, kimg=STEPS * config.batch / 1000)
    half = dataclasses.replace(config, kimg=config.kimg / 2)
    first = trainer_for(config, RESOLUTION, device)
    spec = TrainingSpec(
        architecture=first.state.generator.architecture,
        config=config,
        classes=("a", "b", "c"),
        data_digest="d",
    )
    undisturbed, again = (trained_weights(config, device) for _ in range(2))
    store = MemoryStore()
    stopped = train(new_state(spec.architecture, half, device), first.data, half)
    save_checkpoint(store, stopped, spec)
    resumed = train(resume_or_start(store, spec, device), first.data, config)
    return compare_trainings(generator_weights(resumed), undisturbed, again)


def trained_weights(config: GanConfig, device: torch.device) -> Tensor:
    """Return the generator's weights after a training of some steps."""
    trainer = trainer_for(config, RESOLUTION, device)
    for _ in range(STEPS):
        trainer.run_step()
    return generator_weights(trainer.state)


def generator_weights(state: TrainingState) -> Tensor:
    """Return the weights as one vector."""
    return torch.cat([p.detach().flatten() for p in state.generator.parameters()])


def compare_trainings(ours: Tensor, right: Tensor, again: Tensor) -> dict:
    """Return how far weights are from the right ones, beside those of a second such training."""
    error, noise = distance(ours, right), distance(again, right)
    return {
        "ok": error <= max(10 * noise, ROUNDING),
        "detail": f"relative difference {error:.1e}; of two undisturbed runs {noise:.1e}",
    }


if __name__ == "__main__":
    main()
