"""Contract of GAN methods and adversarial losses, as checks to call from a test.

Each check raises an AssertionError that says what a method lacks::

    @pytest.mark.parametrize("check", METHOD_CHECKS)
    @pytest.mark.parametrize("method", METHODS)
    def test_method(method, check):
        check(method)

All run on the CPU, with tiny networks and a few steps.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from gemix.core.distributed import Workers
from gemix.core.errors import DataError
from gemix.gan.checkpoints.checkpoint import TrainingSpec, save_checkpoint
from gemix.gan.checkpoints.generator_io import load_generator, save_generator
from gemix.gan.checkpoints.resume_rules import STABILIZING
from gemix.gan.config import GanConfig, SamplingConfig
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.losses.registry import ADVERSARIAL_LOSSES
from gemix.gan.models.architecture import Architecture
from gemix.gan.sampling import label_path, sample_images
from gemix.gan.training.base_trainer import BaseTrainer
from gemix.gan.training.loop import train
from gemix.gan.training.registry import METHODS, new_state
from gemix.gan.training.stages import resume_or_start
from gemix.gan.training.state import TrainingState

CPU = torch.device("cpu")
BATCH, STEPS = 8, 5
ARCHITECTURE = Architecture(
    resolution=16,
    img_channels=1,
    label_dim=3,
    z_dim=16,
    channel_base=128,
    channel_max=16,
    w_dim=16,
    mapping_layers=2,
    d_mapping_layers=2,
)


class MemoryStore:
    """Files in memory, with the methods of :class:`gemix.io.storage.Store` that checkpoints use."""

    url = "memory:"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        return name in self.files

    def list(self) -> Sequence[str]:
        """Return the names of all files, sorted."""
        return sorted(self.files)

    def read_bytes(self, name: str) -> bytes:
        """Return the content of a file."""
        if name not in self.files:
            raise DataError(f"{self.url}/{name}: cannot be read (no such file)")
        return self.files[name]

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file."""
        self.files[name] = data

    def read_json(self, name: str) -> object:
        """Return the parsed JSON file."""
        return json.loads(self.read_bytes(name))

    def write_json(self, name: str, value: object) -> None:
        """Write a value as JSON; NaN and infinity are refused."""
        self.write_bytes(name, json.dumps(value, allow_nan=False).encode())

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""
        self.files.pop(name, None)


def check_step(method: str) -> None:
    """A step trains every network, with finite losses, as a function of the seed."""
    config, losses = _config(method, steps=1), {}
    state = new_state(ARCHITECTURE, config, CPU)
    before = _weights(state)
    train(state, _dataset(), config, on_step=lambda _, values: losses.update(values))
    after = _weights(state)
    assert state.step == 1, "a step is not counted"
    for network in state.networks:
        names = [name for name in before if name.startswith(f"{network}.")]
        moved = [name for name in names if not torch.equal(before[name], after[name])]
        assert moved, f"no weight of {network} moves in a step"
    for name in ("loss_g", "loss_d"):
        assert name in losses, f"a step does not return {name}"
        assert torch.isfinite(losses[name]), f"{name} is not finite in the first step"
    _assert_equal(_weights(_trained(config)), after, "two trainings of one seed")
    other = _weights(_trained(dataclasses.replace(config, seed=1)))
    assert any(not torch.equal(other[name], after[name]) for name in after), "the seed does nothing"


def check_hint(method: str) -> None:
    """The hint for a divergence names settings, and a resumed training may change them."""
    named = re.findall(r"gan\.(\w+)", METHODS[method].hint)
    assert named, "the hint names no setting, such as gan.g_lr"
    wrong = sorted(set(named) - set(STABILIZING))
    assert not wrong, f"the hint names {wrong}, which resume_rules.STABILIZING does not allow"


def check_resume(method: str) -> None:
    """A training that is stopped and resumed ends bit for bit as one that never was."""
    config = _config(method)
    undisturbed = _trained(config)
    store = MemoryStore()
    stopped = _trained(_config(method, steps=STEPS // 2))
    save_checkpoint(store, stopped, _spec(config))
    resumed = resume_or_start(store, _spec(config), CPU)
    assert resumed.step == STEPS // 2, "a checkpoint does not hold the step"
    train(resumed, _dataset(), config)
    _assert_equal(_weights(resumed), _weights(undisturbed), "weights of a resumed training")
    assert resumed.values == undisturbed.values, "the state is not restored"
    for name, value in undisturbed.tensors.items():
        assert torch.equal(getattr(resumed, name), value), f"{name} is not restored"


def check_unconditional(method: str) -> None:
    """Networks without classes train and are sampled, for the unconditional first stage."""
    config, data = _config(method, steps=2), _dataset().unconditional()
    architecture = dataclasses.replace(ARCHITECTURE, label_dim=0)
    state = train(new_state(architecture, config, CPU), data, config)
    labels = np.zeros((2, 0), np.float32)
    images = sample_images(state.generator_ema, [0, 1], labels, SamplingConfig(), CPU)
    assert images.shape == (2, 1, 16, 16), "no images without labels"


def check_workers(method: str) -> None:
    """Two processes have the gradients of one, in every phase, and end with equal weights."""
    alone, _ = _gradients(method, Workers())
    with tempfile.TemporaryDirectory() as folder:
        args = (2, method, METHODS[method], folder)
        mp.start_processes(_run_worker, args=args, nprocs=2, start_method="forkserver")
        found = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]
    (ours, our_weights), (_, their_weights) = found
    assert len(ours) == len(alone), "the number of optimizer steps depends on that of workers"
    for number, (shared, one) in enumerate(zip(ours, alone, strict=True)):
        error = float((shared - one).norm() / one.norm().clamp_min(1e-12))
        assert error < 1e-4, (
            f"gradients of optimizer step {number} differ by {error:.1e} between one and two "
            "workers: a loss must be a mean over samples that a function of batch_index draws"
        )
    _assert_equal(our_weights, their_weights, "weights of two workers")


def check_accumulation(method: str) -> None:
    """A batch in two parts has the gradients of one whole, in every phase."""
    whole, _ = _gradients(method, Workers())
    parts, _ = _gradients(method, Workers(), accumulate=2)
    for number, (accumulated, one) in enumerate(zip(parts, whole, strict=True)):
        error = float((accumulated - one).norm() / one.norm().clamp_min(1e-12))
        assert error < 1e-4, (
            f"gradients of optimizer step {number} differ by {error:.1e} with gan.accumulate=2: a "
            "phase must pass every part of self.parts to update.backward"
        )


def check_sampling(method: str) -> None:
    """An image is a function of its seed and label, also after a save."""
    config, store = _config(method, steps=2), MemoryStore()
    state = _trained(config)
    save_generator(store, state, _spec(config))
    network = load_generator(store).network
    seeds = list(range(100, 112))
    labels = np.random.default_rng(0).dirichlet([1, 1, 1], size=12).astype(np.float32)

    def sample(generator, which: slice = slice(None), **settings) -> np.ndarray:
        sampling = SamplingConfig(**settings)
        return sample_images(generator, seeds[which], labels[which], sampling, CPU)

    images = sample(network, batch=5)
    assert images.dtype == np.uint8 and images.shape == (12, 1, 16, 16)
    assert len({image.tobytes() for image in images}) == 12, "two seeds have one image"
    alone = sample(network, slice(7, 8))
    difference = np.abs(images[7:8].astype(int) - alone).max()
    assert difference <= 1, "an image depends on the batch that it is sampled in"
    reduced = sample(network, precision="bfloat16", batch=5)
    for which in (slice(7, 8), slice(3, 12)):
        same = np.array_equal(reduced[which], sample(network, which, precision="bfloat16"))
        assert same, "in bfloat16 an image depends on the batch that it is sampled in"
    far = np.abs(reduced.astype(int) - images).mean()
    assert far < 8, f"in bfloat16 images are {far:.1f} grey levels away in the mean"
    for mode in ("random", "const", "none"):
        settings = {"noise_mode": mode, "truncation_psi": 0.7}
        same = np.array_equal(sample(network, **settings), sample(state.generator_ema, **settings))
        assert same, f"a saved generator makes other images, noise_mode {mode}"


def check_labels(method: str) -> None:
    """A soft label, not only a class, reaches both networks."""
    state = new_state(ARCHITECTURE, _config(method), CPU)
    z = torch.randn(1, ARCHITECTURE.z_dim, generator=torch.Generator().manual_seed(0))
    path = torch.from_numpy(label_path(3, 3)[0])  # one class, half of each of two, the other class
    with torch.no_grad():
        images = [state.generator(z, label[None]) for label in path]
        logits = [state.discriminator(images[0], label[None]) for label in path]
    for name, values in {"generator": images, "discriminator": logits}.items():
        for a, b in [(0, 1), (1, 2), (0, 2)]:
            assert not torch.equal(values[a], values[b]), f"the {name} ignores the soft label"


METHOD_CHECKS = (
    check_step,
    check_hint,
    check_resume,
    check_unconditional,
    check_workers,
    check_accumulation,
    check_sampling,
    check_labels,
)


def check_loss(name: str) -> None:
    """An adversarial loss pulls in the right direction and is a mean over samples."""
    loss = ADVERSARIAL_LOSSES[name]
    real, fake = torch.randn(2, 8, 1, generator=torch.Generator().manual_seed(0)).unbind()
    real.requires_grad_(), fake.requires_grad_()
    (of_generator,) = torch.autograd.grad(loss.generator(fake), fake)
    assert (of_generator < 0).all(), "the generator's loss must fall as its images look real"
    of_real, of_fake = torch.autograd.grad(loss.discriminator(real, fake), (real, fake))
    assert (of_real < 0).all(), "the discriminator's loss must fall as real images look real"
    assert (of_fake > 0).all(), "the discriminator's loss must rise as generated ones look real"
    halves = [slice(None, 4), slice(4, None)]
    for whole, parts in [
        (loss.generator(fake), [loss.generator(fake[half]) for half in halves]),
        (
            loss.discriminator(real, fake),
            [loss.discriminator(real[half], fake[half]) for half in halves],
        ),
    ]:
        mean = sum(parts) / 2
        assert torch.allclose(whole, mean), "the loss of a batch is not the mean of its halves'"


def _gradients(
    method: str, workers: Workers, **settings: int
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the gradients of all phases at constant weights, and the weights of a training."""
    config, recorded = dataclasses.replace(_config(method), **settings), []
    state = new_state(ARCHITECTURE, config, CPU)

    def record(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        recorded.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))

    for optimizer in state.optimizers.values():
        optimizer.register_step_pre_hook(record)
        for group in optimizer.param_groups:
            group["initial_lr"] = 0.0  # Adam would magnify rounding from step to step
    train(state, _dataset(), config, workers=workers)
    return recorded, _weights(_trained(config, workers))


def _run_worker(rank: int, size: int, method: str, trainer: type[BaseTrainer], folder: str) -> None:
    torch.set_num_threads(1)
    METHODS[method] = trainer  # of a method that the caller registered
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
    )
    try:
        torch.save(_gradients(method, Workers.from_process_group()), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def _config(method: str, steps: int = STEPS) -> GanConfig:
    settings = {
        "method": method,
        "kimg": steps * BATCH / 1000,
        "batch": BATCH,
        "precision": "float32",
        "z_dim": ARCHITECTURE.z_dim,
        "channel_base": ARCHITECTURE.channel_base,
        "channel_max": ARCHITECTURE.channel_max,
    }
    if method == GanConfig.method:
        settings |= {"w_dim": ARCHITECTURE.w_dim, "mapping_layers": ARCHITECTURE.mapping_layers}
    return GanConfig(**settings)


def _dataset() -> InMemoryDataset:
    """Three classes: dark, medium and bright noise."""
    rng, labels = np.random.default_rng(0), np.arange(60) % 3
    noise = rng.integers(0, 60, (60, 1, 16, 16))
    images = (noise + 90 * labels[:, None, None, None]).astype(np.uint8)
    return InMemoryDataset(images, np.eye(3, dtype=np.float32)[labels], seed=3)


def _spec(config: GanConfig) -> TrainingSpec:
    return TrainingSpec(
        architecture=ARCHITECTURE, config=config, classes=("a", "b", "c"), data_digest="d"
    )


def _trained(config: GanConfig, workers: Workers | None = None) -> TrainingState:
    return train(new_state(ARCHITECTURE, config, CPU), _dataset(), config, workers=workers)


def _weights(state: TrainingState) -> dict[str, Tensor]:
    def named() -> Iterator[tuple[str, Tensor]]:
        for key, network in state.networks.items():
            for name, value in network.state_dict().items():
                yield f"{key}.{name}", value.clone()

    return dict(named())


def _assert_equal(a: dict[str, Tensor], b: dict[str, Tensor], what: str) -> None:
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, f"{what} differ: {', '.join(different[:4])}"
